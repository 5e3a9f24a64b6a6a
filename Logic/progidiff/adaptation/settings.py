"""How an adaptation is done. The defaults are meant to be left alone."""

from __future__ import annotations

from dataclasses import dataclass

CPU_MINUTES, GPU_MINUTES = 15.0, 1.0
LEAST_MINUTES, MOST_MINUTES = 0.01, 24 * 60.0
"""What a user may ask for; not-a-number lies outside."""
KINDS = ("find", "see", "draw")
"""The trainings in their order: the locator, the image encoder by its own organ loss, all that draws."""
TRAININGS = (*KINDS, *(f"{kind}_all" for kind in KINDS))
"""First without what is held out, then from all cases."""


@dataclass(frozen=True)
class AdaptSettings:
    """Settings of `adapt`.

    Attributes:
        minutes: for everything together; None takes 15 on a CPU and 1 on a GPU.
        rank: of the low-rank matrices; alpha is the same.
        encoder: "all" convolutions of the image encoder, or the "first" ones only.
        batch, volume_batch, locator_batch: crops, pieces of volumes and coarse patches a step.
        learning_rate, locator_learning_rate: at the start of the cosine.
        encoder_learning_rate: the same while the image encoder learns alone, where the loss is less noisy.
        appearance: strength of the random appearance, 0…1. Less than in the model's own training, because
            the new scanner's look is what is to be learnt.
        phantoms: how many of each modality are mixed in, so that what the cases do not show is not forgotten.
        shares: of the training time, by the order of `KINDS`; 0 leaves that training out.
        final_share: share of the training time that goes to all cases, after the judgement.
        proposals: drawn for each judged organ.
        rounds: how often the held-out loss is taken.
        most_steps: of one training, however fast the machine.
        patch: (D, H, W) voxels of a coarse patch.
        least_gain: by how much the mean Dice must rise to count as better.
        prior: what the model as it comes counts for, in cases: see `lora.shrunk`.
        seed: of everything random.
    """

    minutes: float | None = None
    rank: int = 8
    encoder: str = "all"
    batch: int = 8
    volume_batch: int = 2
    locator_batch: int = 2
    learning_rate: float = 3e-4
    locator_learning_rate: float = 5e-4
    encoder_learning_rate: float = 2e-3
    appearance: float = 0.5
    phantoms: int = 1
    shares: tuple[float, float, float] = (0.05, 0.60, 0.35)
    final_share: float = 0.3
    proposals: int = 3
    rounds: int = 6
    most_steps: int = 1500
    patch: tuple[int, int, int] = (48, 56, 64)
    least_gain: float = 0.01
    prior: float = 1.0
    seed: int = 0

    def share(self, training: str) -> float:
        """Share of the training time that one of `TRAININGS` gets."""
        of_kind = self.shares[KINDS.index(training.removesuffix("_all"))]
        return of_kind * (self.final_share if training.endswith("_all") else 1 - self.final_share)
