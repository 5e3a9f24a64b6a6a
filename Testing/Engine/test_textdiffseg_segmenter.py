"""The one Segmenter works with the second model: nothing but the folder says that it is another."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import progidiff
import pytest
from progidiff.errors import FindingError, ModelError
from progidiff.segmenter import Segmenter
from progidiff.steering import Promises, SteerOptions, Voxels
from progidiff.steering.target import steered_target
from progidiff.volumes import Volume
from textdiffseg_samples import tiny_pipeline


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = tmp_path_factory.mktemp("models") / "tiny-textdiffseg"
    tiny_pipeline().save_pretrained(folder)
    return Segmenter.load(str(folder), "cpu")


def volume(axes: tuple[int, int, int] = (0, 1, 2), signs: tuple[int, int, int] = (1, 1, 1)) -> Volume:
    """Noise; voxel axis n runs along patient axis `axes[n]`, `signs[n]` forward."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for n, mm in enumerate((7.0, 8.0, 9.0)):
        affine[axes[n], n] = signs[n] * mm
    array = np.random.default_rng(0).normal(60, 40, (20, 18, 6))
    array[:2, :2, :2] = -1000
    return Volume(array.astype(np.int16), affine, "CT")


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (1, -1, 1))]
)
def test_masks_have_exactly_the_grid_of_the_volume(
    segmenter: Segmenter, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    image = volume(axes, signs)
    result = segmenter.segment(image, "segment the liver", proposals=2, steps=1)
    for proposal in result.sets[0].proposals:
        assert proposal.grid.shape == image.shape
        assert np.array_equal(proposal.grid.affine, image.affine)
        assert proposal.probability.shape == image.shape
        assert result.model_id == "tiny-textdiffseg"


def test_a_finding_is_drawn_in_the_window_of_its_organ(segmenter: Segmenter) -> None:
    prepared = segmenter.prepare(volume())
    assert segmenter.findings == ("liver_tumor",)
    (tumor,) = segmenter.segment(volume(), "liver tumor", proposals=1, steps=1).sets
    assert tumor.target.organ == "liver_tumor"
    assert tumor.found
    both = segmenter.segment(volume(), "liver and liver tumor", proposals=1, steps=1)
    assert [s.target.organ for s in both.sets] == ["liver", "liver_tumor"]
    for target in (s.target for s in both.sets):
        segmenter.organ_crop(prepared, target)
    assert list(prepared.crops) == ["liver"], "the features are computed once"


def test_findings_that_it_does_not_know_are_refused(segmenter: Segmenter) -> None:
    with pytest.raises(FindingError, match="does not draw “pancreas tumor”"):
        segmenter.segment(volume(), "pancreas tumor", proposals=1, steps=1)
    prepared = segmenter.prepare(volume())
    marks = Promises(region=Voxels.of_slices(0, 3, prepared.volume.grid))
    with pytest.raises(FindingError, match="does not draw “pancreas tumor”"):
        segmenter.constrain(prepared, steered_target("pancreas_tumor"), marks)


def test_steering_works_with_it_too(segmenter: Segmenter) -> None:
    image = volume()
    prepared = segmenter.prepare(image)
    (found,) = segmenter.segment(image, "liver", proposals=1, steps=1).sets
    options = SteerOptions(proposals=1, steps=2)
    varied = segmenter.vary(prepared, found.proposals[0], 0.5, options=options)
    assert varied.proposals[0].probability.shape == image.shape


def test_less_memory_gives_the_same_grid(segmenter: Segmenter) -> None:
    before = segmenter.pipeline.slices_per_batch
    segmenter.pipeline.slices_per_batch = 16
    try:
        assert segmenter.reduce_memory()
        segmenter.pipeline.slices_per_batch = 2  # so that several windows are needed
        (found,) = segmenter.segment(volume(), "liver", proposals=1, steps=1).sets
    finally:
        segmenter.pipeline.slices_per_batch = before
    assert found.proposals[0].probability.shape == (20, 18, 6)


def test_other_models_do_not_wait_for_monai() -> None:
    """One file of the pipelines imports it, and nothing that another model needs imports that file."""
    sources = {
        path: path.read_text(encoding="utf-8") for path in Path(progidiff.__file__).parent.rglob("*.py")
    }
    importing = re.compile(r"^ *(?:from|import) monai", re.MULTILINE)
    found = [path for path, text in sources.items() if importing.search(text)]
    assert [path.name for path in found if "pipelines" in path.parts] == ["denoiser.py"]
    needing = re.compile(r"^(?:from|import) progidiff\.(?:pipelines|training)\.textdiffseg", re.MULTILINE)
    users = {path for path, text in sources.items() if needing.search(text)}
    assert all(path.parent.name in ("textdiffseg", "training") for path in users)


def test_a_model_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROGIDIFF_MODELS", str(tmp_path))
    monkeypatch.setattr("progidiff.model_list.resources_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="textdiffseg"):
        Segmenter.load("textdiffseg", "cpu")
