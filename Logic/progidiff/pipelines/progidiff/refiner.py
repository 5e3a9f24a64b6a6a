"""The refinement head: puts the decoded mask's border where the image says it is."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.evidence import evidence_logits


class MaskRefiner(ModelMixin, ConfigMixin):
    """Adds a correction to the decoded logits from image features at full resolution.

    The last convolution starts at zero: an untrained refiner changes nothing.

    Args:
        detail_channels: channels of what `ImageEncoder.refinable` gives.
        text_dim: width of the text embedding, which tells the head what organ it mends.
        width: features of the head.
        weighs_evidence: what is corrected is a logarithmic pool (Genest & Zidek, Statistical Science 1986) of
            the drawn mask and of the evidence, the last of the detail channels, instead of the drawn mask
            alone. The text says how much each of the two counts; it begins with the evidence alone.
    """

    @register_to_config
    def __init__(
        self, detail_channels: int = 16, text_dim: int = 128, width: int = 24, weighs_evidence: bool = False
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(detail_channels + 2, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        self.text = nn.Linear(text_dim, 2 * width)
        self.weigh = nn.Linear(text_dim, 2) if weighs_evidence else None
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        if self.weigh is not None:
            nn.init.zeros_(self.weigh.weight)
            with torch.no_grad():
                self.weigh.bias.copy_(torch.tensor([0.0, 1.0]))

    def weighing_evidence(self) -> MaskRefiner:
        """A refiner that weighs the evidence, otherwise with the weights of this one."""
        size = self.config
        made = MaskRefiner(size.detail_channels, size.text_dim, size.width, weighs_evidence=True)
        made.load_state_dict(self.state_dict(), strict=False)
        return made

    def forward(self, logits: Tensor, detail: Tensor, text: Tensor) -> Tensor:
        """Correct mask logits.

        Args:
            logits: (B, 1, H, W) decoded from the latents.
            detail: (B, detail_channels, H, W).
            text: (B, text_dim) mean of the text tokens.

        Returns:
            (B, 1, H, W) logits.
        """
        logits = logits.to(detail)
        x = torch.cat([detail, torch.tanh(logits / 4), logits / 8], 1)
        scale, shift = self.text(text.to(x))[..., None, None].chunk(2, 1)
        x = F.silu(self.first(x) * (1 + scale) + shift)
        x = F.silu(self.second(x))
        return self._believed(logits, detail, text) + self.last(x)

    def _believed(self, logits: Tensor, detail: Tensor, text: Tensor) -> Tensor:
        """The logits that are corrected."""
        if self.weigh is None:
            return logits
        drawn, evidence = self.weigh(text.to(logits))[..., None, None].chunk(2, 1)
        return drawn * logits + evidence * evidence_logits(detail[:, -1:].float())
