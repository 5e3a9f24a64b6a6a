"""All figures of one organ in one case, from its proposals and its reference mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progidiff.evaluation.calibration import brier, error_by_disagreement, rank_correlation, reliability
from progidiff.evaluation.jitter import MARGIN_MM, jitter
from progidiff.evaluation.metrics import Mask, compare, dice, pairwise_dice, union_box
from progidiff.evaluation.records import OrganRecord
from progidiff.proposals.proposal import ProposalSet, Region
from progidiff.proposals.regions import mask_on, probability_on, recrop
from progidiff.volumes.volume import Grid

BOX_MARGIN_MM = 10.0  # calibration and disagreement are measured this far around organ and proposals
JITTER_TOLERANCE = 0.01


@dataclass(frozen=True)
class _Cropped:
    """Everything that is measured, in the box around the organ and all proposals with room for jitter.

    Attributes:
        masks: the proposals' masks, best score first.
        probability: mean over proposals; zeros where the organ was not found.
        disagreement: 1 − agreement; None where the model did not give it.
        near: the narrower box, `BOX_MARGIN_MM` around organ and proposals, within this one.
    """

    reference: Mask
    consensus: Mask
    masks: list[Mask]
    probability: NDArray[np.float32]
    disagreement: NDArray[np.float32] | None
    near: Region


def measure_organ(
    predicted: ProposalSet,
    reference: Mask,
    *,
    seconds: float,
    rng: np.random.Generator,
    tolerance_mm: float = 2.0,
    deterministic: bool = False,
) -> OrganRecord:
    """Compares an organ's proposals and their consensus with the reference.

    Args:
        predicted: the answer to the prompt, on the grid of `reference`.
        reference: (I, J, K) bool.
        seconds: what the answer took.
        rng: randomness of the jitter control.
        tolerance_mm: of the surface Dice.
        deterministic: the answer is a label map: no calibration, no control.
    """
    grid = predicted.grid
    record = OrganRecord(
        organ=predicted.target.organ,
        outcome="correctly absent",
        found=predicted.found,
        reference_ml=_millilitres(reference, grid),
        prediction_ml=0.0,
        seconds=round(seconds, 3),
        steps=predicted.proposals[0].provenance.steps if predicted.proposals else None,
        distinct=predicted.distinct,
        all_empty=all(proposal.is_empty for proposal in predicted.proposals),
        scores=[round(float(proposal.score), 5) for proposal in predicted.proposals],
    )
    crop = _crop(predicted, reference)
    if crop is None:
        return record
    agreement = compare(crop.consensus, crop.reference, grid.spacing, tolerance_mm)
    record.outcome = agreement.outcome
    record.prediction_ml = _millilitres(crop.consensus, grid)
    record.pairwise = pairwise_dice(crop.masks)
    if record.counted:
        record.dice, record.hd95_mm = agreement.dice, agreement.hd95_mm
        record.surface_dice = agreement.surface_dice
        _add_proposals(record, crop)
        if not deterministic:
            record.dice_at_half = 0.0 if not reference.any() else dice(crop.probability > 0.5, crop.reference)
            _add_jitter(record, crop, grid.spacing, rng)
    if not deterministic:
        _add_calibration(record, crop)
    return record


def _crop(predicted: ProposalSet, reference: Mask) -> _Cropped | None:
    """Cuts the box around reference and proposals; None when there is nothing anywhere."""
    consensus, spacing = predicted.consensus, predicted.grid.spacing
    occupied = reference.copy()
    for answer in [*predicted.proposals, *([consensus] if consensus else [])]:
        occupied[answer.region] |= answer.mask_in_region
    box = union_box([occupied], spacing, MARGIN_MM)
    if box is None:
        return None
    near = union_box([occupied[box]], spacing, BOX_MARGIN_MM)
    assert near is not None  # something is occupied
    nothing = np.zeros(reference[box].shape, np.float32)
    disagreement = None
    if consensus is not None and predicted.agreement_in_region is not None:
        disagreement = recrop(1.0 - predicted.agreement_in_region, consensus.region, box)
    return _Cropped(
        reference=reference[box],
        consensus=mask_on(consensus, box) if consensus else nothing > 0,
        masks=[mask_on(proposal, box) for proposal in predicted.proposals],
        probability=probability_on(consensus, box) if consensus else nothing,
        disagreement=disagreement,
        near=near,
    )


def _add_proposals(record: OrganRecord, crop: _Cropped) -> None:
    """Dice of every proposal; an organ that was not found counts as one empty proposal."""
    absent = not crop.reference.any()
    record.singles = [0.0 if absent else dice(mask, crop.reference) for mask in crop.masks]
    record.single = float(np.mean(record.singles)) if record.singles else 0.0
    record.best = max(record.singles, default=0.0)


def _add_jitter(
    record: OrganRecord, crop: _Cropped, spacing: NDArray[np.float64], rng: np.random.Generator
) -> None:
    """The best of random variations of one proposal, drawn among those that are not empty."""
    drawn = [mask for mask in crop.masks if mask.any()]
    if not drawn or record.pairwise is None or not crop.reference.any():
        return
    shaken = jitter(
        drawn[rng.integers(len(drawn))],
        count=len(crop.masks),
        wanted_dice=record.pairwise,
        spacing=spacing,
        rng=rng,
        tolerance=JITTER_TOLERANCE,
    )
    reference_total = int(np.count_nonzero(crop.reference))
    reference = crop.reference[shaken.region]
    scores = [_dice_with_total(mask, reference, reference_total) for mask in shaken.masks]
    record.jitter_best, record.jitter_single = max(scores), float(np.mean(scores))
    record.jitter_pairwise, record.jitter_matched = shaken.pairwise_dice, shaken.matched


def _dice_with_total(mask: Mask, reference_in_box: Mask, reference_total: int) -> float:
    """Dice where the reference reaches beyond the box that holds the whole mask."""
    overlap = int(np.count_nonzero(mask & reference_in_box))
    return 2.0 * overlap / (int(np.count_nonzero(mask)) + reference_total)


def _add_calibration(record: OrganRecord, crop: _Cropped) -> None:
    probability, reference = crop.probability[crop.near], crop.reference[crop.near]
    curve = reliability(probability, reference)
    record.ece, record.brier = curve.calibration_error, brier(probability, reference)
    record.reliability = curve.to_json()
    if crop.disagreement is not None and len(crop.masks) > 1:
        disagreement, wrong = crop.disagreement[crop.near], crop.consensus[crop.near] != reference
        record.disagreement = error_by_disagreement(disagreement, wrong).to_json()
        record.disagreement_error_rho = rank_correlation(disagreement, wrong)


def _millilitres(mask: Mask, grid: Grid) -> float:
    return round(float(np.count_nonzero(mask)) * grid.voxel_ml, 3)
