"""CT or MR, and the model's intensity range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import UsageError
from progidiff.volumes import Volume, decide_modality, normalise, read_volume

SHAPE = (24, 24, 10)


def body_mask() -> np.ndarray:
    x, y, _ = np.indices(SHAPE)
    return (x - 11.5) ** 2 + (y - 11.5) ** 2 < 100


def ct(seed: int = 0) -> np.ndarray:
    """Air, fat, organs and a little bone, in HU."""
    rng = np.random.default_rng(seed)
    tissues = rng.choice([-100.0, 40.0, 60.0, 130.0, 600.0], p=[0.25, 0.3, 0.25, 0.15, 0.05], size=SHAPE)
    hounsfield = np.where(body_mask(), tissues, -1000.0) + rng.normal(0, 12, SHAPE)
    return np.round(hounsfield)


def mr(seed: int = 0) -> np.ndarray:
    """Skewed positive intensities in the body over a dim noisy background."""
    rng = np.random.default_rng(seed)
    return np.where(body_mask(), rng.gamma(2.0, 150.0, SHAPE), np.abs(rng.normal(0, 8, SHAPE)))


def volume(array: np.ndarray, modality="unknown") -> Volume:
    return Volume(array, np.eye(4), modality)


def padded(array: np.ndarray, value: float) -> np.ndarray:
    corners = array.copy()
    corners[:4, :4] = corners[-4:, -4:] = value
    return corners


STORED_CT = {
    "HU": ct(),
    "padding -2000": padded(ct(), -2000),
    "padding -3024": padded(ct(), -3024),
    "padding -32768": padded(ct(), -32768).astype(np.int16),
    "1024 added": (ct() + 1024).clip(0).astype(np.uint16),
    "1024 added, padding 0": padded((ct() + 1024).clip(0), 0).astype(np.uint16),
    "1024 added, padding -2000": padded(ct() + 1024, -2000).astype(np.int16),
    "windowed -125…275": ct().clip(-125, 275).astype(np.float32),
    "windowed -160…240": ct().clip(-160, 240),
    "body only": ct()[8:16, 8:16],
}


@pytest.mark.parametrize("name", STORED_CT)
def test_ct_is_recognised_however_it_was_stored(name):
    assert decide_modality(volume(STORED_CT[name])) == "CT"


@pytest.mark.parametrize("scale", [0.001, 0.1, 0.7, 1.0, 2.0, 3.0, 5.0, 40.0])
@pytest.mark.parametrize("background", [0.0, 1.0])
def test_mr_is_recognised_at_any_scale(scale, background):
    array = np.where(body_mask(), mr(), background * mr())
    assert decide_modality(volume(array * scale)) == "MR"


def test_the_files_word_beats_the_intensities():
    assert decide_modality(volume(mr(), "CT")) == "CT"
    assert decide_modality(volume(ct(), "MR")) == "MR"


@pytest.mark.parametrize(
    "name", [name for name in STORED_CT if "windowed" not in name and name != "body only"]
)
def test_ct_normalises_to_the_same_however_it_was_stored(name):
    usual = normalise(volume(ct())).array
    stored = normalise(volume(STORED_CT[name]))
    assert stored.array.dtype == np.float32
    assert stored.modality == "CT"
    kept = padded(np.ones(SHAPE), 0) > 0
    np.testing.assert_allclose(stored.array[kept], usual[kept], atol=1e-5)
    assert stored.array.min() == -1


def test_ct_window_ends_at_minus_one_and_one():
    hounsfield = np.array([-1000, -125, 75, 275, 3000], np.int16).reshape(1, 1, 5)
    np.testing.assert_allclose(
        normalise(volume(hounsfield), "CT").array.ravel(), [-1, -1, 0, 1, 1], atol=1e-6
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    scale=st.floats(1e-3, 1e4),
    offset=st.floats(-1e3, 1e3),
    seed=st.integers(0, 5),
    zero_background=st.booleans(),
)
def test_mr_does_not_depend_on_scale_and_offset(scale, offset, seed, zero_background):
    array = mr(seed)
    if zero_background:
        array = np.where(body_mask(), array, 0.0)
    # An offset of many ranges would drown the image in float64's last digits.
    changed = array * scale + offset * scale
    np.testing.assert_allclose(
        normalise(volume(changed), "MR").array, normalise(volume(array), "MR").array, atol=1e-4
    )


def test_mr_uses_the_whole_range_and_ignores_padding_and_outliers():
    array = np.where(body_mask(), mr(), 0.0)
    plain = normalise(volume(array), "MR").array
    assert plain.min() == -1
    assert plain.max() == 1
    assert 0.3 < plain[body_mask()].std() < 0.8
    # Twice as much empty space around the patient changes nothing.
    wider = normalise(volume(np.pad(array, ((12, 12), (12, 12), (0, 0)))), "MR").array[12:-12, 12:-12]
    np.testing.assert_allclose(wider, plain, atol=1e-6)
    bright = array.copy()
    bright[12, 12, 5] = 1e6
    difference = np.abs(normalise(volume(bright), "MR").array - plain)
    difference[12, 12, 5] = 0
    assert difference.max() < 0.05


@pytest.mark.parametrize("modality", ["auto", "CT", "MR"])
@pytest.mark.parametrize("value", [0, -2000, 50, 4000])
def test_an_image_without_contrast_gives_sane_numbers(modality, value):
    array = normalise(volume(np.full(SHAPE, value, np.int16)), modality).array
    assert np.isfinite(array).all()
    assert np.abs(array).max() <= 1


def test_two_valued_and_single_voxel_images_give_sane_numbers():
    two = np.zeros(SHAPE, np.uint8)
    two[3:6, 3:6] = 7
    for array in (two, np.ones((1, 1, 1)), np.arange(4.0).reshape(1, 4, 1)):
        for modality in ("CT", "MR"):
            result = normalise(volume(array), modality).array
            assert np.isfinite(result).all()
            assert np.abs(result).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", "f8"])
def test_any_dtype_is_normalised_and_left_alone(dtype):
    array = (mr() / mr().max() * 250).astype(dtype)
    before = array.copy()
    result = normalise(volume(array), "mr").array
    assert result.dtype == np.float32
    np.testing.assert_array_equal(array, before)
    np.testing.assert_allclose(result, normalise(volume(array.astype(np.float64)), "MR").array, atol=1e-5)


def test_memory_layout_does_not_matter():
    array = mr()
    np.testing.assert_array_equal(
        normalise(volume(np.asfortranarray(array)), "MR").array, normalise(volume(array), "MR").array
    )


def test_an_unknown_modality_is_refused():
    with pytest.raises(UsageError, match="PET"):
        normalise(volume(ct()), "PET")


def test_every_real_ct_and_mr_is_told_apart(shared_data):
    cases = sorted((shared_data / "ct").glob("*_image.nii.gz")) + sorted(
        (shared_data / "mr").glob("*_image.nii.gz")
    )
    assert len(cases) > 10
    wrong = []
    for path in cases:
        expected = path.parent.name.upper()
        image = read_volume(path)
        image = replace(image, array=image.array[::2, ::2, ::2])
        stored = {"as it is": image}
        if expected == "CT":
            stored["1024 added"] = replace(image, array=image.array + 1024)
        else:
            stored["tripled"] = replace(image, array=image.array.astype(np.float32) * 3)
        wrong += [(path.name, how) for how, v in stored.items() if decide_modality(v) != expected]
    assert not wrong
