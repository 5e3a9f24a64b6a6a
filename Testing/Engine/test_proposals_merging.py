"""Laws of merging: what a union, intersection, majority, mean or STAPLE may and may not do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from progidiff.errors import UsageError
from progidiff.proposals import MERGE_METHODS, merge
from proposals_samples import SPLEEN, ball, grid_of, proposal_of

SHAPE = (6, 5, 4)
probabilities = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
thresholds = st.floats(0.05, 0.95)
groups = st.lists(st.tuples(probabilities, thresholds), min_size=2, max_size=5)


def proposals_of(group):
    return [proposal_of(a, f"liver {n + 1}", threshold=t) for n, (a, t) in enumerate(group)]


@given(groups)
@settings(max_examples=60, deadline=None)
def test_votes_decide_whatever_the_thresholds(group):
    proposals = proposals_of(group)
    votes = np.sum([p.mask for p in proposals], axis=0)
    np.testing.assert_array_equal(merge(proposals, "union").mask, votes >= 1)
    np.testing.assert_array_equal(merge(proposals, "intersection").mask, votes == len(proposals))
    np.testing.assert_array_equal(merge(proposals, "majority").mask, votes > len(proposals) / 2)


@given(groups, st.floats(0, 0.99))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_cut_at_the_given_threshold(group, threshold):
    proposals = proposals_of(group)
    merged = merge(proposals, "mean", threshold)
    np.testing.assert_allclose(
        merged.probability, np.mean([p.probability for p in proposals], axis=0), atol=1e-6
    )
    assert merged.threshold == threshold


@given(groups, st.sampled_from(MERGE_METHODS), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_proposals_does_not_matter(group, how, random):
    proposals = proposals_of(group)
    shuffled = random.sample(proposals, len(proposals))
    first, second = merge(proposals, how).probability, merge(shuffled, how).probability
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.isfinite(first).all()
    assert 0.0 <= first.min() <= first.max() <= 1.0


@pytest.mark.parametrize("how", MERGE_METHODS)
def test_a_proposal_merged_with_itself_stays_itself(how):
    proposal = proposal_of(ball((10, 9, 8), (5, 4, 4), 3))
    np.testing.assert_array_equal(merge([proposal, proposal], how).mask, proposal.mask)


@pytest.mark.parametrize("how", MERGE_METHODS)
def test_proposals_without_a_voxel_in_common_or_at_all_can_be_merged(how):
    a = proposal_of(ball((14, 9, 8), (3, 4, 4), 2), "liver 1")
    b = proposal_of(ball((14, 9, 8), (11, 4, 4), 2), "liver 2")
    empty = proposal_of(np.zeros((14, 9, 8)), "liver 3")
    for group in ([a, b], [a, empty], [empty, empty]):
        merged = merge(group, how)
        assert merged.probability.shape == (14, 9, 8)
        assert np.isfinite(merged.probability_in_region).all()
    assert merge([a, b], "union").mask.sum() == a.mask.sum() + b.mask.sum()
    assert merge([a, b], "intersection").is_empty
    assert merge([empty, empty], how).is_empty


def test_staple_trusts_the_two_that_agree_more_than_the_third():
    shape = (16, 16, 10)
    good = ball(shape, (7, 8, 5), 4)
    proposals = [
        proposal_of(good, "liver 1"),
        proposal_of(good, "liver 2"),
        proposal_of(ball(shape, (12, 8, 5), 3), "liver 3"),
    ]
    np.testing.assert_array_equal(merge(proposals, "staple").mask, good > 0.5)


def test_a_merge_says_where_it_comes_from_and_leaves_its_parents_alone():
    parents = [proposal_of(ball((9, 9, 6), (4, 4, 3), r), f"liver {r}", seed=r) for r in (2, 3)]
    before = [p.probability_in_region.copy() for p in parents]
    merged = merge(parents, "union")
    assert merged.name == "liver union"
    assert merged.provenance.method == "merged:union"
    assert merged.provenance.parent == "liver 2 + liver 3"
    assert merged.provenance.prompt == "segment the liver"
    assert 0.0 < merged.score <= 1.0
    for parent, probability in zip(parents, before, strict=True):
        np.testing.assert_array_equal(parent.probability_in_region, probability)


def test_a_merge_can_be_merged_again():
    shape = (9, 9, 6)
    a, b, c = (proposal_of(ball(shape, (x, 4, 3), 2), f"liver {x}") for x in (3, 4, 5))
    both = merge([merge([a, b], "union"), replace(c, threshold=0.3)], "intersection")
    np.testing.assert_array_equal(both.mask, (a.mask | b.mask) & (c.probability > 0.3))


def test_what_cannot_be_merged_is_refused_with_a_remedy():
    one = proposal_of(ball((8, 8, 6), (4, 4, 3), 2))
    moved = replace(one, grid=grid_of((8, 8, 6), (2.0, 2.0, 4.0)))
    spleen = replace(one, target=SPLEEN)
    cases = [
        ([one], "union", 0.5, "at least two"),
        ([], "mean", 0.5, "at least two"),
        ([one, moved], "union", 0.5, "another volume"),
        ([one, spleen], "union", 0.5, "different organs"),
        ([one, one], "average", 0.5, "no way to merge"),
        ([one, one], "mean", 1.5, "between 0 and 1"),
    ]
    for proposals, how, threshold, words in cases:
        with pytest.raises(UsageError, match=words) as refused:
            merge(proposals, how, threshold)
        assert refused.value.remedy
