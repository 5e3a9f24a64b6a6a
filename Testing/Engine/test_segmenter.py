"""From a volume in any orientation to masks on exactly its grid, with a tiny model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from progidiff.errors import Cancelled, PromptError, UsageError, VolumeError
from progidiff.pipelines.locate import OrganBox
from progidiff.prompts import Target, parse_prompt
from progidiff.proposals import Proposal
from progidiff.segmenter import Segmenter, segment, to_proposal
from progidiff.volumes import Volume, axial_grid
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load(str(tiny_model()), "cpu")


def volume(
    shape: tuple[int, int, int] = (20, 18, 6),
    spacing: tuple[float, float, float] = (7.0, 8.0, 9.0),
    axes: tuple[int, int, int] = (0, 1, 2),
    signs: tuple[int, int, int] = (1, 1, 1),
    dtype: type = np.int16,
) -> Volume:
    """A soft-tissue block with noise; voxel axis n runs along patient axis `axes[n]`, `signs[n]` forward."""
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for n in range(3):
        affine[axes[n], n] = signs[n] * spacing[n]
    affine[:3, 3] = (30.0, -200.0, 1000.0)
    array = rng.normal(60, 40, shape)
    array[tuple(slice(0, max(1, n // 8)) for n in shape)] = -1000
    return Volume(array.astype(dtype), affine, "CT")


def propose(segmenter: Segmenter, image: Volume, **options: object) -> list[Proposal]:
    result = segmenter.segment(image, "liver", **{"proposals": 1, "steps": 1, **options})  # type: ignore[arg-type]
    (found,) = result.sets
    assert found.found, found.reason
    return found.proposals


ORIENTATIONS = [
    ((0, 1, 2), (1, 1, 1)),
    ((0, 1, 2), (-1, -1, 1)),
    ((2, 0, 1), (-1, 1, -1)),
    ((1, 2, 0), (1, -1, 1)),
    ((2, 1, 0), (-1, -1, -1)),
]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_masks_have_exactly_the_grid_of_the_volume(
    segmenter: Segmenter, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    image = volume(axes=axes, signs=signs)
    for proposal in propose(segmenter, image):
        assert proposal.mask.shape == proposal.probability.shape == image.shape
        assert np.array_equal(proposal.grid.affine, image.affine)


def test_the_same_anatomy_in_another_order_gives_the_same_mask(segmenter: Segmenter) -> None:
    image = volume(spacing=(7.0, 7.0, 7.0))
    (reference,) = propose(segmenter, image)
    assert not reference.is_empty
    for order, flips in itertools.islice(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)), 5, None, 11
    ):
        other = reorder(image, order, flips)
        (proposal,) = propose(segmenter, other)
        back = reorder(Volume(proposal.mask, other.affine), *inverse(order, flips))
        a, b = reference.mask, back.array
        dice = 2 * (a & b).sum() / (a.sum() + b.sum())
        assert dice > 0.99, (order, flips, dice)


def reorder(image: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same voxels in the same places, stored in another order."""
    array = image.array.transpose(order)
    affine = image.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
            array = np.flip(array, axis)
    return Volume(np.ascontiguousarray(array), affine, image.modality)


def inverse(order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    back = tuple(int(n) for n in np.argsort(order))
    return back, tuple(flips[n] for n in back)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_in_any_direction(segmenter: Segmenter, axis: int) -> None:
    shape = tuple(1 if n == axis else 16 for n in range(3))
    for proposal in propose(segmenter, volume(shape)):  # type: ignore[arg-type]
        assert proposal.mask.shape == shape


@pytest.mark.parametrize("shape", [(2, 3, 1), (64, 2, 2), (3, 3, 3)])
def test_volumes_of_hardly_any_voxels(segmenter: Segmenter, shape: tuple[int, int, int]) -> None:
    result = segmenter.segment(volume(shape), "liver", proposals=2, steps=1)
    (found,) = result.sets
    assert found.found or found.reason  # in so few voxels a mask may well be empty
    assert all(p.mask.shape == shape for p in found.proposals)


def test_an_image_of_one_value_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(VolumeError):
        segmenter.segment(volume((1, 1, 1)), "liver", steps=1)


def test_an_oblique_volume(segmenter: Segmenter) -> None:
    image = volume()
    a, b = np.cos(0.4), np.sin(0.4)
    turn = np.array([[a, -b, 0], [b, a, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    affine = image.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    (proposal,) = propose(segmenter, Volume(image.array, affine, "CT"))
    assert proposal.mask.shape == image.shape and np.array_equal(proposal.grid.affine, affine)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_any_type_of_number(segmenter: Segmenter, dtype: type) -> None:
    image = volume(dtype=np.int16)
    array = (np.clip(image.array, -125, 130) + 125).astype(dtype)
    assert propose(segmenter, Volume(array, image.affine, "MR"))[0].mask.shape == image.shape


def test_the_input_is_left_as_it_was(segmenter: Segmenter) -> None:
    image = volume()
    array, affine = image.array.copy(), image.affine.copy()
    propose(segmenter, image)
    assert np.array_equal(image.array, array) and np.array_equal(image.affine, affine)


def test_same_seed_same_proposal(segmenter: Segmenter) -> None:
    first, second, other = (propose(segmenter, volume(), seed=s, steps=2)[0] for s in (4, 4, 5))
    assert np.array_equal(first.probability, second.probability)
    assert not np.array_equal(first.probability, other.probability)


def test_every_organ_asked_for_is_answered(segmenter: Segmenter) -> None:
    result = segmenter.segment(volume(), "liver, spleen and pancreas", proposals=2, steps=1)
    assert [(s.target.organ, s.found) for s in result.sets] == [
        ("liver", True),
        ("spleen", False),
        ("pancreas", True),
    ]
    liver, spleen, _ = result.sets
    assert "No spleen" in spleen.reason and not spleen.proposals
    assert [p.score for p in liver.proposals] == sorted((p.score for p in liver.proposals), reverse=True)
    assert liver.consensus is not None and liver.consensus.mask.shape == result.volume.shape
    assert result.volume.modality in ("CT", "MR")  # as it was read
    assert liver.pairwise_dice is not None and liver.pairwise_dice.shape == (2, 2)


def test_provenance_says_where_a_mask_came_from(segmenter: Segmenter) -> None:
    result = segmenter.segment(volume(), "please segment the liver", proposals=2, steps=1, seed=40)
    origins = {p.provenance.seed: p.provenance for p in result.sets[0].proposals}
    assert set(origins) == {40, 41}
    origin = origins[40]
    assert origin.prompt == "please segment the liver" and origin.steps == 1 and origin.device == "cpu"
    assert origin.model == segmenter.model_id and origin.model_hash == segmenter.model_hash


def test_progress_and_proposals_arrive_in_order(segmenter: Segmenter) -> None:
    steps: list[tuple[int, int]] = []
    proposals: list[str] = []
    segmenter.segment(
        volume(),
        "liver and pancreas",
        proposals=2,
        steps=2,
        on_step=lambda done, total: steps.append((done, total)),
        on_proposal=lambda p: proposals.append(p.name),
    )
    assert steps == [(n, 8) for n in range(1, 9)]
    assert proposals == ["liver 1", "liver 2", "pancreas 1", "pancreas 2"]


def test_cancelled_between_steps_keeps_what_was_given(segmenter: Segmenter) -> None:
    given: list[Proposal] = []
    with pytest.raises(Cancelled):
        segmenter.segment(
            volume(),
            "liver",
            proposals=3,
            steps=2,
            on_proposal=given.append,
            cancelled=lambda: len(given) == 1,
        )
    assert len(given) == 1


def test_the_model_says_how_much_the_coarse_pass_counts(segmenter: Segmenter) -> None:
    prepared = segmenter.prepare(volume())
    box = OrganBox(np.array([-150.0, 80.0, 1000.0]), np.array([-50.0, 180.0, 1040.0]))  # x to the left
    own, logits = segmenter.pipeline.config.coarse_weight, []
    try:
        for weight in (0.0, 1.0, 2.0):
            segmenter.pipeline.register_to_config(coarse_weight=weight)
            logits.append(segmenter.crop_at(prepared, box).features.organs.float())
    finally:
        segmenter.pipeline.register_to_config(coarse_weight=own)
    once, twice = logits[1] - logits[0], logits[2] - logits[0]
    assert once.abs().max() > 0.1
    assert once.std() > 0.1, "the same everywhere"
    torch.testing.assert_close(twice, 2 * once, atol=0.1, rtol=0.02)  # logits are rounded to bf16


def test_a_prepared_volume_serves_several_organs(segmenter: Segmenter) -> None:
    prepared = segmenter.prepare(volume())
    liver, pancreas = parse_prompt("liver, pancreas")
    first = segmenter.propose(prepared, liver, 1, 1)
    segmenter.propose(prepared, pancreas, 1, 1)
    again = segmenter.propose(prepared, liver, 1, 1)
    assert np.array_equal(first.proposals[0].mask, again.proposals[0].mask)
    assert set(prepared.crops) == {"liver", "pancreas"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompt": ""}, PromptError),
        ({"prompt": "the left toe"}, PromptError),
        ({"proposals": 0}, UsageError),
        ({"proposals": -3}, UsageError),
        ({"steps": 0}, UsageError),
        ({"modality": "PET"}, UsageError),
    ],
)
def test_what_cannot_be_asked_for(
    segmenter: Segmenter, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        segmenter.segment(volume(), **{"prompt": "liver", "steps": 1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(segmenter: Segmenter, value: float) -> None:
    image = volume(dtype=np.float32)
    image.array[3, 3, 3] = value
    with pytest.raises(VolumeError):
        segmenter.segment(image, "liver", steps=1)


def test_less_memory_same_grid(segmenter: Segmenter) -> None:
    before = segmenter.pipeline.slices_per_batch
    segmenter.pipeline.slices_per_batch = 256  # as on a GPU
    try:
        while segmenter.reduce_memory():
            pass
        assert segmenter.pipeline.slices_per_batch == 8
        assert propose(segmenter, volume())[0].mask.shape == (20, 18, 6)
    finally:
        segmenter.pipeline.slices_per_batch = before


def test_segment_in_one_call_writes_the_results(tmp_path_factory: pytest.TempPathFactory) -> None:
    output = tmp_path_factory.mktemp("results") / "out"
    result = segment(volume(), "liver", output, 1, 1, 0, str(tiny_model()), "cpu")
    assert result.sets[0].found
    assert {"proposals.json", "consensus.nii.gz", "proposals.seg.nrrd"} <= {p.name for p in output.iterdir()}


def test_a_probability_lands_where_its_grid_says(segmenter: Segmenter) -> None:
    """A box that is drawn in the crop appears at the same place in the patient."""
    native = axial_grid((40, 40, 10), (4.0, 4.0, 8.0), np.array([10.0, 20.0, 30.0]))
    image = Volume(np.zeros(native.shape, np.float32), native.affine)
    crop = axial_grid((32, 32, 6), (2.5, 2.5, 8.0), np.array([10.0, 20.0, 30.0]))
    probability = np.zeros((6, 32, 32), np.float32)
    probability[1:5, 8:24, 8:24] = 1  # 40 × 40 × 32 mm around the centre
    origin = propose(segmenter, volume())[0].provenance
    target = Target("liver", "liver", None, "liver", "liver")
    proposal = to_proposal("liver 1", target, probability, crop, image, origin)
    where = np.argwhere(proposal.mask) @ native.affine[:3, :3].T + native.affine[:3, 3]
    assert np.allclose(where.mean(0), (10.0, 20.0, 30.0), atol=1.0)
    assert proposal.volume_ml == pytest.approx(40 * 40 * 32 / 1000, rel=0.15)
