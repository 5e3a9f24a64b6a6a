"""Consensus, agreement, ranking and the count of proposals that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from progidiff.errors import UsageError
from progidiff.proposals import (
    ProposalSet,
    agreement,
    best_threshold,
    consensus_of,
    count_distinct,
    dice,
    expected_dice,
    keep_largest_components,
    pairwise_dice,
    same_as,
    summarise,
    tidy,
)
from progidiff.proposals.consensus import HIGHEST_THRESHOLD, LOWEST_THRESHOLD
from progidiff.proposals.distinct import distinct_proposals
from proposals_samples import LIVER, ball, grid_of, proposal_of

SHAPE = (7, 6, 5)
probabilities = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=16))
few_probabilities = st.lists(probabilities, min_size=1, max_size=4)


def proposals_of(arrays):
    return [proposal_of(array, f"liver {n + 1}") for n, array in enumerate(arrays)]


@given(probabilities)
@settings(max_examples=60, deadline=None)
def test_no_allowed_threshold_expects_a_higher_dice(probability):
    chosen = best_threshold(probability)
    assert LOWEST_THRESHOLD <= chosen <= HIGHEST_THRESHOLD
    allowed = [t for t in [*np.unique(probability), LOWEST_THRESHOLD] if t >= LOWEST_THRESHOLD]
    best = max(expected_dice(probability > t, probability) for t in allowed)
    assert expected_dice(probability > chosen, probability) == pytest.approx(best, abs=1e-6)


def test_expected_dice_is_the_dice_where_the_truth_is_certain():
    truth, mask = np.zeros((2, *SHAPE), bool)
    truth[1:5, 1:5, 1:4] = True
    mask[2:6, 1:5, 1:4] = True
    expected = 2 * (truth & mask).sum() / (truth.sum() + mask.sum())
    assert expected_dice(mask, truth.astype(np.float32)) == pytest.approx(expected)
    assert expected_dice(np.zeros(SHAPE, bool), truth.astype(np.float32)) == 0.0


def test_expected_dice_is_close_to_the_mean_dice_of_drawn_truths():
    rng = np.random.default_rng(0)
    probability = ball((14, 14, 8), (7, 7, 4), 4) * 0.9
    mask = probability > 0.3
    drawn = rng.random((200, *probability.shape)) < probability
    measured = np.mean([2 * (d & mask).sum() / (d.sum() + mask.sum()) for d in drawn])
    assert expected_dice(mask, probability) == pytest.approx(measured, abs=0.01)


def test_a_small_organ_whose_place_is_disputed_is_kept():
    arrays = np.zeros((3, 12, 6, 6), np.float32)
    for n in range(3):
        arrays[n, 1 + 3 * n : 5 + 3 * n, 2:4, 2:4] = 1.0  # each overlaps its neighbour by a quarter
    consensus = consensus_of(proposals_of(arrays))
    assert not (np.mean(arrays, axis=0) > 0.67).any()
    assert not consensus.is_empty
    assert consensus.threshold < 0.4


def test_consensus_is_the_mean_over_all_regions():
    a, b = ball((12, 10, 8), (4, 5, 4), 3), ball((12, 10, 8), (8, 5, 4), 2)
    consensus = consensus_of(proposals_of([a, b]))
    np.testing.assert_allclose(consensus.probability, (a + b) / 2, atol=1e-6)
    assert consensus.name == "liver consensus"
    assert consensus.provenance.method == "consensus"
    assert consensus.provenance.parent == "liver 1 + liver 2"
    assert consensus.provenance.model == "embedded"


def test_a_consensus_of_steered_proposals_says_what_they_kept_to():
    made = [
        replace(p, provenance=replace(p.provenance, strength=0.4, constraints="2 voxels inside"))
        for p in proposals_of([ball((12, 10, 8), (4, 5, 4), radius) for radius in (2, 3)])
    ]
    provenance = consensus_of(made).provenance
    assert (provenance.strength, provenance.constraints) == (0.4, "2 voxels inside")
    made[0] = replace(made[0], provenance=replace(made[0].provenance, strength=0.9))
    assert consensus_of(made).provenance.strength is None


@given(few_probabilities)
@settings(max_examples=30, deadline=None)
def test_agreement_stays_in_its_range_and_ignores_the_order(arrays):
    proposals = proposals_of(arrays)
    everywhere = tuple(slice(0, n) for n in SHAPE)
    forwards, backwards = agreement(proposals, everywhere), agreement(proposals[::-1], everywhere)
    assert forwards.dtype == np.float32
    assert forwards.min() >= 0.0
    assert forwards.max() <= 1.0
    np.testing.assert_allclose(forwards, backwards, atol=1e-6)


@given(probabilities, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_equal_proposals_agree_everywhere(array, count):
    everywhere = tuple(slice(0, n) for n in SHAPE)
    np.testing.assert_array_equal(agreement(proposals_of([array] * count), everywhere), 1.0)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_vote_split_in_the_middle_is_no_agreement(count):
    arrays = [np.full(SHAPE, float(n < count // 2), np.float32) for n in range(count)]
    everywhere = tuple(slice(0, n) for n in SHAPE)
    np.testing.assert_allclose(agreement(proposals_of(arrays), everywhere), 0.0, atol=1e-6)


def test_agreement_of_masks_counts_the_votes():
    arrays = [np.full(SHAPE, float(n < 1), np.float32) for n in range(5)]  # 1 vote of 5
    everywhere = tuple(slice(0, n) for n in SHAPE)
    np.testing.assert_allclose(agreement(proposals_of(arrays), everywhere), 1 - 1 * 4 / (2 * 3), atol=1e-6)


def test_summary_ranks_the_outlier_last_and_keeps_the_names():
    shape = (16, 14, 8)
    centers = [(3, 3, 3), (8, 7, 4), (8, 7, 4.4), (8.4, 7, 4)]
    arrays = [ball(shape, center, 4) for center in centers]
    proposals = proposals_of(arrays)
    summary = summarise(LIVER, grid_of(shape), proposals)
    assert summary.found
    assert summary.proposals[-1].name == "liver 1"
    assert {p.name for p in summary.proposals} == {p.name for p in proposals}
    scores = [p.score for p in summary.proposals]
    assert scores == sorted(scores, reverse=True)
    mean = np.mean(arrays, axis=0)
    for proposal in summary.proposals:
        assert proposal.score == pytest.approx(expected_dice(proposal.mask, mean), abs=1e-6)
    assert summary.agreement_in_region.shape == summary.consensus.probability_in_region.shape
    assert proposals[0].score == 0.0  # the given proposals are not changed


def test_pairwise_dice_matches_the_full_masks():
    shape = (12, 12, 8)
    arrays = [ball(shape, c, 3) for c in [(4, 4, 4), (6, 5, 4), (9, 9, 5)]] + [np.zeros(shape, np.float32)]
    proposals = proposals_of(arrays)
    matrix = pairwise_dice(proposals)
    for a, one in enumerate(proposals):
        for b, other in enumerate(proposals):
            size = one.mask.sum() + other.mask.sum()
            expected = 2 * (one.mask & other.mask).sum() / size if size else 1.0
            assert matrix[a, b] == pytest.approx(expected)


def test_repetitions_are_counted_once_and_point_to_the_better_one():
    matrix = np.array([[1, 0.985, 0.5], [0.985, 1, 0.5], [0.5, 0.5, 1]])
    assert same_as(matrix) == [0, 0, 2]
    assert count_distinct(matrix) == 2
    chain = np.array([[1, 0.985, 0.96], [0.985, 1, 0.985], [0.96, 0.985, 1]])
    assert same_as(chain) == [0, 0, 2]  # the ends of a chain of small steps differ


def test_each_distinct_proposal_is_shown_once_with_the_names_of_its_repetitions():
    shape = (12, 12, 6)
    arrays = [ball(shape, (x, 6, 3), 3) for x in (5, 5, 8, 5, 8)]
    summary = summarise(LIVER, grid_of(shape), proposals_of(arrays))
    shown = distinct_proposals(summary)
    assert sorted(each.name for each in shown) == ["liver 1 (also 2, 4)", "liver 3 (also 5)"]
    assert all(summary.proposals[each.rank] is each.proposal for each in shown)
    assert len(summary.proposals) == 5


def test_repetitions_of_other_names_keep_them_whole():
    shape = (12, 12, 6)
    names = ["liver 2.1", "liver 2.2", "painted.1"]
    same = [proposal_of(ball(shape, (5, 6, 3), 3), name) for name in names]
    (shown,) = distinct_proposals(summarise(LIVER, grid_of(shape), same))
    assert shown.name == "liver 2.1 (also 2.2, painted.1)"
    assert [s.name for s in distinct_proposals(summarise(LIVER, grid_of(shape), same[:1]))] == ["liver 2.1"]
    assert distinct_proposals(ProposalSet(LIVER, grid_of(shape))) == []


def test_nothing_found_is_said_in_a_sentence():
    shape = (6, 6, 4)
    empty = np.zeros(shape, np.float32)
    faint = np.full(shape, 0.05, np.float32)
    for arrays in ([], [empty, empty], [faint, faint]):
        summary = summarise(LIVER, grid_of(shape), proposals_of(arrays))
        assert not summary.found
        assert summary.reason == "No liver was found in the field of view."
        assert len(summary.proposals) == len(arrays)
    assert dice(*proposals_of([empty, empty])) == 1.0


def test_what_no_proposal_draws_is_not_in_the_consensus_either():
    """Their mean may pass the low threshold of a consensus."""
    probability = np.zeros((6, 6, 4), np.float32)
    probability[2:4, 2:4, 1:3] = 0.4
    summary = summarise(LIVER, grid_of(probability.shape), proposals_of([probability, probability]))
    assert not summary.found and summary.consensus is not None
    assert summary.consensus.is_empty and summary.consensus.score == 0


def test_a_consensus_that_drops_what_proposals_with_low_thresholds_draw_stays_empty():
    probability = np.zeros((6, 6, 4), np.float32)
    probability[2, 2, 1] = 0.08
    low = [replace(p, threshold=0.05) for p in proposals_of([probability, probability])]
    summary = summarise(LIVER, grid_of(probability.shape), low)
    assert not summary.found and summary.consensus is not None and summary.consensus.is_empty


def test_proposals_of_another_grid_are_refused():
    proposal = proposal_of(ball((8, 8, 6), (4, 4, 3), 2))
    with pytest.raises(UsageError, match="another volume"):
        summarise(LIVER, grid_of((8, 8, 6), (2.0, 2.0, 4.0)), [proposal])


def test_tidy_drops_specks_and_fills_pinholes_but_not_cavities():
    probability = np.zeros((30, 30, 6), np.float32)
    probability[5:25, 5:25, 1:5] = 0.9
    probability[10, 10, 2] = 0.2  # pinhole: 4 mm²
    probability[15:21, 15:21, 2] = 0.1  # cavity: 144 mm²
    probability[0, 0, 0] = 0.8  # speck
    clean = tidy(proposal_of(probability))
    assert clean.mask[10, 10, 2]
    assert not clean.mask[15:21, 15:21, 2].any()
    assert not clean.mask[0, 0, 0]
    assert clean.mask.sum() == 20 * 20 * 4 - 36
    assert tidy(clean).mask_in_region.sum() == clean.mask_in_region.sum()


def test_tidy_fills_across_the_axial_slices_of_any_orientation():
    probability = np.zeros((6, 30, 30), np.float32)  # slices stacked along the first axis
    probability[1:5, 5:25, 5:25] = 0.9
    probability[2, 10, 10] = 0.0
    axial = grid_of((30, 30, 6)).affine
    turned = type(grid_of((1, 1, 1)))((6, 30, 30), axial[:, [2, 0, 1, 3]])
    assert tidy(proposal_of(probability, grid=turned)).mask[2, 10, 10]


def test_components_of_a_fraction_of_the_largest_stay():
    mask = np.zeros((20, 10, 4), bool)
    mask[0:8, 0:5, 0:4] = True  # 160 voxels
    mask[12:16, 0:5, 0:1] = True  # 20
    mask[18, 8, 3] = True  # 1
    assert keep_largest_components(mask, 0.1).sum() == 180
    assert keep_largest_components(mask, 1.0).sum() == 160
    assert keep_largest_components(np.zeros_like(mask)).sum() == 0
