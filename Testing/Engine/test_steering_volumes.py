"""Vary and constrain on volumes in any orientation, with a tiny untrained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import Cancelled, UsageError
from progidiff.pipelines.locate import canonical_mm
from progidiff.prompts import organ_table, parse_prompt
from progidiff.proposals import Proposal, dice
from progidiff.segmenter import PreparedVolume
from progidiff.steering import Promises, SteerOptions, Voxels, proposal_from_mask
from progidiff.steering.window import guess_on, knowledge_on, window_for
from steering_samples import liver, prepared, tiny_segmenter

ONE = SteerOptions(proposals=1, steps=2)
STRAIGHT = ((0, 1, 2), (-1, -1, 1), 0.0)
placements = st.tuples(
    st.permutations((0, 1, 2)).map(tuple),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.sampled_from((0.0, 25.0)),
)


def ball(
    case: PreparedVolume, radius_mm: float = 9.0, shift: tuple[float, float, float] = (0, 0, 0)
) -> Proposal:
    """A ball beside the middle of the volume, so that a flipped axis would be noticed."""
    grid = case.volume.grid
    places = np.stack(np.indices(grid.shape), -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    middle = places.reshape(-1, 3).mean(0) + np.array((4.0, -3.0, 2.0)) + shift
    return proposal_from_mask(np.linalg.norm(places - middle, axis=-1) < radius_mm, liver(), grid, "ball")


@pytest.fixture
def exact_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder that loses nothing, as long as the latents are not changed."""
    pipeline, kept = tiny_segmenter().pipeline, []

    def encode(mask: torch.Tensor) -> torch.Tensor:
        kept[:] = [mask]
        return torch.zeros(len(mask), 4, 4, 4)

    monkeypatch.setattr(pipeline, "encode_mask", encode)
    monkeypatch.setattr(pipeline, "decode", lambda latents, features, text: kept[0])


# -- the way to the window and back ----------------------------------------------------------------


@pytest.mark.usefixtures("exact_autoencoder")
@settings(max_examples=10, deadline=None)
@given(placements)
def test_a_mask_comes_back_to_its_place_from_any_orientation(placement: tuple) -> None:
    case = prepared(*placement)
    parent = ball(case)
    (same,) = tiny_segmenter().vary(case, parent, strength=0.0, options=ONE).proposals
    assert same.mask.shape == case.volume.shape
    assert np.array_equal(same.grid.affine, case.volume.affine)
    assert dice(same, parent) > 0.93


def test_the_window_follows_a_mask_that_lies_elsewhere() -> None:
    case = replace(prepared(*STRAIGHT), crops={})
    segmenter, parent = tiny_segmenter(), ball(case, 6.0)
    elsewhere = segmenter.crop_at(case, box_at(case, -40.0))
    case.crops["liver"] = elsewhere
    window = window_for(segmenter, case, liver(), Promises(parent=parent))
    assert window is not None and window is not elsewhere
    guess = guess_on(window.grid, Promises(parent=parent))
    assert guess is not None
    assert float(guess.sum()) * window.grid.voxel_ml == pytest.approx(parent.volume_ml, rel=0.1)


def test_the_located_window_is_kept_where_it_shows_the_mask() -> None:
    case = replace(prepared(*STRAIGHT), crops={})
    segmenter, parent = tiny_segmenter(), ball(case, 5.0)
    located = case.crops["liver"] = segmenter.crop_at(case, box_at(case, 0.0))
    assert window_for(segmenter, case, liver(), Promises(parent=parent)) is located
    assert window_for(segmenter, case, liver(), Promises(outside=Voxels.of_mask(parent.mask))) is located


def test_without_any_hint_of_a_place_nothing_is_found() -> None:
    case = replace(prepared(*STRAIGHT), crops={"liver": None})
    outside = Voxels.of_mask(ball(case).mask)
    found = tiny_segmenter().constrain(case, liver(), Promises(outside=outside), options=ONE)
    assert not found.found
    assert "mark a point inside" in found.reason
    region = Promises(region=Voxels.of_slices(2, 8, case.volume.grid))
    assert window_for(tiny_segmenter(), case, liver(), region) is not None


@pytest.mark.parametrize("located", [True, False])
def test_a_finding_is_drawn_around_a_mark_beyond_the_window_of_its_organ(located: bool) -> None:
    case = replace(prepared(*STRAIGHT), crops={"liver": None})
    segmenter, inside = tiny_segmenter(), Voxels.of_mask(ball(case).mask)
    if located:
        case.crops["liver"] = segmenter.crop_at(case, box_at(case, -40.0))
    (tumor,) = parse_prompt("the liver tumor", ("liver_tumor",))
    window = window_for(segmenter, case, tumor, Promises(inside=inside))
    same = window_for(segmenter, case, liver(), Promises(inside=inside))
    assert window is not None and same is not None
    assert np.array_equal(window.grid.affine, same.grid.affine)


def box_at(case: PreparedVolume, shift_mm: float):
    """A box of 30 mm around the volume's middle, moved to the patient's left."""
    from progidiff.pipelines.locate import OrganBox

    grid = case.volume.grid
    middle = canonical_mm(grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3])
    middle[0] += shift_mm
    return OrganBox(middle - 15, middle + 15)


# -- what the model is told ------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(placements, st.integers(0, 999))
def test_a_mark_is_known_at_its_own_pixel(placement: tuple, seed: int) -> None:
    case = prepared(*placement)
    parent = ball(case)
    index = np.argwhere(parent.mask)[seed % int(parent.mask.sum())]
    point = case.volume.affine[:3, :3] @ index + case.volume.affine[:3, 3]
    window = tiny_segmenter().crop_at(case, box_at(case, 0.0)).grid
    marks = Promises(inside=Voxels.of_points([point], case.volume.grid))
    known = knowledge_on(window, case.volume.grid, marks, organ_table().by_id("liver"))
    assert known is not None
    column, row, slice_ = np.rint(np.linalg.inv(window.affine) @ [*point, 1])[:3].astype(int)
    assert known.weight[slice_, row, column] == 1
    assert known.value[slice_, row, column] == 1
    far = known.weight == 0
    assert far.any(), "a point says nothing of distant tissue"


def test_what_may_not_change_is_known_for_certain() -> None:
    case = prepared(*STRAIGHT)
    parent = ball(case)
    region = Voxels.of_slices(0, 5, case.volume.grid)
    window = tiny_segmenter().crop_at(case, box_at(case, 0.0)).grid
    known = knowledge_on(
        window, case.volume.grid, Promises(region=region, parent=parent), organ_table().by_id("liver")
    )
    assert known is not None
    depth = (window.affine[2, 3] + np.arange(window.shape[2]) * 3.0 - case.volume.affine[2, 3]) / 3.0
    certain = known.weight.flatten(1).min(1).values.numpy() == 1
    certain_anywhere = known.weight.flatten(1).max(1).values.numpy() == 1
    assert not certain_anywhere[np.rint(depth) <= 5].any()
    assert certain_anywhere[np.rint(depth) >= 6].all()
    assert certain.sum() <= certain_anywhere.sum()


def test_a_region_without_a_mask_tells_the_model_nothing() -> None:
    case = prepared(*STRAIGHT)
    window = tiny_segmenter().crop_at(case, box_at(case, 0.0)).grid
    region = Promises(region=Voxels.of_slices(0, 5, case.volume.grid))
    assert knowledge_on(window, case.volume.grid, region, organ_table().by_id("liver")) is None


# -- whole requests --------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)
@given(placements, st.integers(0, 2**32 - 1))
def test_promises_hold_whatever_the_model_draws(placement: tuple, seed: int) -> None:
    case = prepared(*placement)
    rng = np.random.default_rng(seed)
    parent = ball(case)
    shape = case.volume.shape
    inside, fixed = rng.random(shape) < 0.02, rng.random(shape) < 0.1
    region = np.zeros(shape, bool)
    region[2:-2, 2:-2, 2:-2] = True
    frozen = fixed | ~region
    inside &= ~frozen | parent.mask
    outside = (rng.random(shape) < 0.02) & ~inside & (~frozen | ~parent.mask)
    promises = Promises(*map(Voxels.of_mask, (inside, outside, fixed, region)), parent)
    found = tiny_segmenter().constrain(case, liver(), promises, options=SteerOptions(1, 2, seed % 100))
    assert found.consensus is not None
    for proposal in [*found.proposals, found.consensus]:
        assert proposal.mask[inside].all()
        assert not proposal.mask[outside].any()
        assert np.array_equal(proposal.mask[frozen], parent.mask[frozen])


def test_varying_within_a_region_leaves_the_rest_alone() -> None:
    case = prepared(*STRAIGHT)
    parent = ball(case)
    region = Voxels.of_slices(0, 5, case.volume.grid)
    (varied,) = tiny_segmenter().vary(case, parent, 0.8, region, ONE).proposals
    rest = ~region.on((slice(0, 20), slice(0, 18), slice(0, 12)))
    assert np.array_equal(varied.mask[rest], parent.mask[rest])
    assert not np.array_equal(varied.mask, parent.mask)


def test_the_record_names_parent_strength_and_constraints() -> None:
    case = prepared(*STRAIGHT)
    parent = ball(case)
    (varied,) = tiny_segmenter().vary(case, parent, 0.25, options=ONE).proposals
    assert varied.name == "ball.1"
    record = varied.provenance
    assert (record.parent, record.method, record.strength, record.constraints) == ("ball", "varied", 0.25, "")
    assert (record.model, record.steps, record.prompt) == ("tiny", 2, "segment the liver")
    inside = Promises(inside=Voxels.of_mask(parent.mask), parent=None)
    (made,) = (
        tiny_segmenter()
        .constrain(case, liver(), inside, options=replace(ONE, prompt="liver, please"))
        .proposals
    )
    assert made.name == "liver 1"
    assert made.provenance.method == "constrained"
    assert made.provenance.constraints == f"{int(parent.mask.sum())} voxels inside"
    assert made.provenance.prompt == "liver, please"


def test_proposals_are_streamed_with_progress_and_the_same_seed_repeats_them() -> None:
    case = prepared(*STRAIGHT)
    steps: list[tuple[int, int]] = []
    streamed: list[Proposal] = []
    options = SteerOptions(2, 2, 7, on_step=lambda *step: steps.append(step), on_proposal=streamed.append)
    found = tiny_segmenter().vary(case, ball(case), 1.0, options=options)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {p.name for p in found.proposals} == {p.name for p in streamed} == {"ball.1", "ball.2"}
    again = tiny_segmenter().vary(case, ball(case), 1.0, options=replace(options, on_step=None, proposals=1))
    assert np.array_equal(again.proposals[0].probability, streamed[0].probability)


def test_cancelling_keeps_what_was_drawn() -> None:
    case = prepared(*STRAIGHT)
    streamed: list[Proposal] = []
    options = SteerOptions(3, 2, on_proposal=streamed.append, cancelled=lambda: bool(streamed))
    with pytest.raises(Cancelled):
        tiny_segmenter().vary(case, ball(case), options=options)
    assert len(streamed) == 1


def test_bad_requests_are_refused_before_anything_is_computed() -> None:
    case, segmenter = prepared(*STRAIGHT), tiny_segmenter()
    other = ball(prepared((2, 1, 0), (1, 1, 1)))
    nothing = proposal_from_mask(np.zeros(case.volume.shape), liver(), case.volume.grid)
    with pytest.raises(UsageError, match="is empty"):
        segmenter.vary(case, nothing)
    with pytest.raises(UsageError, match="another volume"):
        segmenter.vary(case, other)
    with pytest.raises(UsageError, match="between 0 and 1"):
        segmenter.vary(case, ball(case), strength=2)
    with pytest.raises(UsageError, match="no constraints"):
        segmenter.constrain(case, liver(), Promises(parent=ball(case)))
    with pytest.raises(UsageError, match="0 proposals"):
        segmenter.vary(case, ball(case), options=SteerOptions(proposals=0))
