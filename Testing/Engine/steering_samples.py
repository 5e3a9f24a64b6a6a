"""A tiny, untrained Segmenter and volumes in awkward orientations, for the tests of steering."""

from __future__ import annotations

import functools

import numpy as np
from progidiff.prompts import Target, parse_prompt
from progidiff.segmenter import PreparedVolume, Segmenter
from progidiff.volumes import Volume
from tiny_models import tiny_pipeline


@functools.cache
def tiny_segmenter() -> Segmenter:
    """Random weights, always the same; its masks are nonsense, its promises must hold all the same."""
    return Segmenter(tiny_pipeline(), "tiny", "0" * 64, "cpu")


def liver() -> Target:
    return parse_prompt("segment the liver")[0]


def turned_volume(order: tuple[int, int, int], flips: tuple[int, int, int], tilt: float = 0.0) -> Volume:
    """A noisy volume of about 40 × 36 × 24 mm per axis whose array axes run in any order and direction.

    Args:
        order: which array axis runs along R, A and S.
        flips: ±1 for each array axis.
        tilt: degrees by which the whole is turned about the patient's long axis.
    """
    shape = np.array((20, 18, 12))[list(order)]
    spacing = np.array((2.0, 2.0, 3.0))[list(order)]
    matrix = np.zeros((3, 3))
    for axis in range(3):
        matrix[order[axis], axis] = spacing[axis] * flips[axis]
    angle = np.deg2rad(tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ matrix
    affine[:3, 3] = (5.0, -8.0, 100.0)
    array = np.random.default_rng(3).normal(50, 40, tuple(shape)).astype(np.float32)
    return Volume(array, affine, "CT")


@functools.cache
def prepared(order: tuple[int, int, int], flips: tuple[int, int, int], tilt: float = 0.0) -> PreparedVolume:
    return tiny_segmenter().prepare(turned_volume(order, flips, tilt))
