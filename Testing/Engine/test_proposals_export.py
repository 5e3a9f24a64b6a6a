"""The result's files: complete, on the input's grid, readable by others, all or none."""

from __future__ import annotations

import errno
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from progidiff.errors import OutputError
from progidiff.prompts import organ_table, parse_prompt
from progidiff.proposals import RESULT_FILES, contact_sheet, export, write_results
from progidiff.proposals.description import describe, note_on
from progidiff.proposals.maps import agreement_map, consensus_labels, mean_probability_map
from proposals_samples import (
    LIVER,
    SPLEEN,
    ball,
    grid_of,
    group_of,
    liver_and_spleen,
    oblique_grid,
    result_of,
)

SHAPE = (22, 18, 10)
SHEET = bytes(30_000)
GRIDS = {"axial": grid_of(SHAPE), "oblique": oblique_grid(SHAPE)}


@pytest.fixture(autouse=True)
def quick_sheet(monkeypatch):
    """A blank instead of the contact sheet, which has its own tests and takes the longest."""
    monkeypatch.setattr(export, "contact_sheet", lambda _, path: path.write_bytes(SHEET))


def read_segments(path):
    """Segments by id as (fields, mask), read without the code that wrote them."""
    header = path.read_bytes().split(b"\n\n", 1)[0].decode("utf-8")
    pairs = dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)
    layers = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    if layers.ndim == 3:
        layers = layers[..., None]
    layers = layers.transpose(2, 1, 0, 3)
    found = {}
    number = 0
    while f"Segment{number}_ID" in pairs:
        prefix = f"Segment{number}_"
        fields = {key[len(prefix) :]: value for key, value in pairs.items() if key.startswith(prefix)}
        found[fields["ID"]] = (fields, layers[..., int(fields["Layer"])] == int(fields["LabelValue"]))
        number += 1
    return found, layers.shape[3]


def tags_of(fields):
    return dict(tag.split(":", 1) for tag in fields["Tags"].rstrip("|").split("|"))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_overlapping_segments_survive_the_file(tmp_path, grid):
    result = liver_and_spleen(grid)
    path = write_results(result, tmp_path / "out")["proposals.seg.nrrd"]
    segments, layers = read_segments(path)
    proposals = [p for group in result.sets for p in [group.consensus, *group.proposals]]
    assert list(segments) == [p.name.replace(" ", "_") for p in proposals]
    for proposal in proposals:
        fields, mask = segments[proposal.name.replace(" ", "_")]
        np.testing.assert_array_equal(mask, proposal.mask)
        assert fields["Name"] == proposal.name
        extent = [int(n) for n in fields["Extent"].split()]
        inside = np.argwhere(mask)
        assert extent[0::2] == inside.min(axis=0).tolist()
        assert extent[1::2] == inside.max(axis=0).tolist()
    assert 4 <= layers < len(proposals)  # four masks of the liver overlap; spleens share their layers


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_every_image_lies_on_the_input_grid(tmp_path, grid):
    files = write_results(liver_and_spleen(grid), tmp_path)
    lps = np.diag([-1.0, -1.0, 1.0]) @ grid.affine[:3]
    for name in ("proposals.seg.nrrd", "consensus.nii.gz", "probability.nii.gz", "agreement.nii.gz"):
        image = sitk.ReadImage(str(files[name]))
        assert image.GetSize() == grid.shape
        axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        np.testing.assert_allclose(axes, lps[:, :3], atol=1e-5)
        np.testing.assert_allclose(image.GetOrigin(), lps[:, 3], atol=1e-4)


def test_the_maps_in_the_files_are_the_maps(tmp_path):
    grid = GRIDS["axial"]
    result = liver_and_spleen(grid)
    files = write_results(result, tmp_path)
    for name, expected, dtype in [
        ("consensus.nii.gz", consensus_labels(result.sets, grid), np.uint8),
        ("probability.nii.gz", mean_probability_map(result.sets, grid), np.float32),
        ("agreement.nii.gz", agreement_map(result.sets, grid), np.float32),
    ]:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(files[name]))).transpose(2, 1, 0)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


def test_where_organs_overlap_the_more_probable_one_has_the_voxel():
    grid = GRIDS["axial"]
    weak = np.zeros(SHAPE, np.float32)
    strong = np.zeros(SHAPE, np.float32)
    weak[2:10, 5:9, 2:6] = 0.7
    strong[6:14, 5:9, 2:6] = 0.9
    groups = [group_of(LIVER, grid, [weak], ""), group_of(SPLEEN, grid, [strong], "")]
    for order in (groups, groups[::-1]):
        labels = consensus_labels(order, grid)
        assert (labels[2:6, 5:9, 2:6] == 6).all()
        assert (labels[6:14, 5:9, 2:6] == 1).all()
        assert set(np.unique(labels)) == {0, 1, 6}
        assert mean_probability_map(order, grid)[7, 6, 3] == np.float32(0.9)


def test_a_finding_has_its_voxels_in_its_organ_but_not_in_another():
    grid = GRIDS["axial"]
    liver, spleen, tumor = (np.zeros(SHAPE, np.float32) for _ in range(3))
    liver[2:10, 5:9, 2:6] = 0.95  # the liver includes its tumor
    spleen[12:18, 5:9, 2:6] = 0.95
    tumor[8:14, 5:9, 2:6] = 0.7
    (target,) = parse_prompt("the liver tumor", ("liver_tumor",))
    groups = [group_of(t, grid, [a], "") for t, a in ((LIVER, liver), (SPLEEN, spleen), (target, tumor))]
    for order in (groups, groups[::-1]):
        row = consensus_labels(order, grid)[:, 6, 3]
        assert row[2:18].tolist() == [6] * 6 + [14] * 4 + [1] * 6


def test_segments_carry_colour_terminology_and_provenance(tmp_path):
    prompt = "the liver | left\nlobe, 100 % ~ ^ größer"
    result = liver_and_spleen(GRIDS["axial"], prompt)
    segments, _ = read_segments(write_results(result, tmp_path)["proposals.seg.nrrd"])
    fields, _ = segments["liver_consensus"]
    color = [round(float(channel) * 255) for channel in fields["Color"].split()]
    assert color == list(organ_table().by_id("liver").color)
    tags = tags_of(fields)
    assert tags["Segmentation.Status"] == "inprogress"
    assert "SCT^10200004^Liver" in tags["TerminologyEntry"]
    assert tags["TerminologyEntry"].count("~") == 6
    assert tags["ProGiDiff.method"] == "consensus"
    best = result.sets[0].proposals[0]
    tags = tags_of(segments[best.name.replace(" ", "_")][0])
    assert tags["ProGiDiff.seed"] == str(best.provenance.seed)
    assert tags["ProGiDiff.model_hash"] == "0123abcd"
    assert float(tags["ProGiDiff.score"]) == pytest.approx(best.score, abs=1e-4)
    assert tags["ProGiDiff.prompt"] == "the liver / left lobe, 100 % ~ ^ größer"
    assert len({fields["Color"] for key, (fields, _) in segments.items() if key.startswith("liver")}) == 4


def test_proposals_of_one_name_get_ids_of_their_own(tmp_path):
    grid = GRIDS["axial"]
    groups = [group_of(LIVER, grid, [ball(SHAPE, (8, 9, 5), 4)], "") for _ in range(2)]
    segments, _ = read_segments(write_results(result_of(groups, grid), tmp_path)["proposals.seg.nrrd"])
    assert list(segments) == ["liver_consensus", "liver_1", "liver_consensus_2", "liver_1_2"]


def test_the_description_says_what_is_in_the_files(tmp_path):
    result = liver_and_spleen(GRIDS["oblique"])
    content = json.loads(write_results(result, tmp_path)["proposals.json"].read_text(encoding="utf-8"))
    assert content["prompt"] == "liver and spleen"
    assert content["model_id"] == "embedded"
    assert content["model_hash"] == "0123abcd"
    assert content["device"] == "cpu"
    assert content["seconds"] == {"propose": 1.25}
    assert content["input"]["path"] == "scans/phantom.nii.gz"
    assert content["input"]["shape"] == list(SHAPE)
    np.testing.assert_allclose(content["input"]["affine_ras"], result.volume.affine)
    assert content["versions"]["numpy"] == np.__version__
    liver, spleen = content["organs"]
    assert (liver["name"], liver["label"], liver["found"]) == ("liver", 6, True)
    assert (spleen["name"], spleen["label"], spleen["found"]) == ("spleen", 1, True)
    assert liver["note"] == "2 of 3 proposals differ."
    assert spleen["note"] == "All 2 proposals differ."
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "consensus.nii.gz")))
    assert set(np.unique(labels)) == {0, 1, 6}
    group = result.sets[0]
    for n, (entry, proposal) in enumerate(zip(liver["proposals"], group.proposals, strict=True)):
        assert entry["name"] == proposal.name
        assert entry["score"] == pytest.approx(proposal.score, abs=1e-4)
        assert entry["volume_ml"] == pytest.approx(proposal.mask.sum() * 15.0 / 1000, abs=1e-3)
        assert entry["seed"] == proposal.provenance.seed
        np.testing.assert_allclose(entry["pairwise_dice"], group.pairwise_dice[n], atol=1e-4)
        assert 0.0 < entry["dice_to_consensus"] <= 1.0
    assert [entry["same_as"] is not None for entry in liver["proposals"]].count(True) == 1


def test_the_description_names_the_series_and_nothing_else_of_a_dicom_header(tmp_path):
    result = liver_and_spleen(GRIDS["axial"])
    plain = describe(result)["input"]
    assert (plain["series_uid"], plain["series_description"]) == ("", "")
    header = {"format": "DICOM", "series": "1.2.3.4", "description": "portal venous", "patient": "Doe^Jane"}
    series = describe(replace(result, volume=replace(result.volume, metadata=header)))["input"]
    assert (series["series_uid"], series["series_description"]) == ("1.2.3.4", "portal venous")
    assert "Doe" not in json.dumps(series)


def test_the_home_folder_is_one_place_for_all_files(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    paths = write_results(liver_and_spleen(GRIDS["axial"]), "~/results")
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == sorted(RESULT_FILES)
    assert all(path.is_file() for path in paths.values())


def test_a_folder_with_too_long_a_name_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_results(liver_and_spleen(GRIDS["axial"]), tmp_path / ("x" * 300))


def test_an_organ_that_is_not_there_gives_files_that_say_so(tmp_path):
    grid = GRIDS["axial"]
    empty = group_of(SPLEEN, grid, [np.zeros(SHAPE)] * 2, "")
    for number, groups in enumerate([[empty], [group_of(SPLEEN, grid, [], "")]]):
        files = write_results(result_of(groups, grid), tmp_path / str(number))
        organ = json.loads(files["proposals.json"].read_text(encoding="utf-8"))["organs"][0]
        assert organ["found"] is False
        assert organ["note"] == "No spleen was found in the field of view."
        assert read_segments(files["proposals.seg.nrrd"]) == ({}, 1)
        assert not sitk.GetArrayFromImage(sitk.ReadImage(str(files["consensus.nii.gz"]))).any()
        assert files["contact_sheet.png"].read_bytes() == SHEET


def test_notes_count_what_differs():
    grid = GRIDS["axial"]
    one = ball(SHAPE, (9, 9, 5), 4)
    assert note_on(group_of(LIVER, grid, [one], "")) == "One proposal."
    assert note_on(group_of(LIVER, grid, [one, one], "")) == "All 2 proposals are the same."


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, age in ((".unfinished-old", 90_000), (".unfinished-fresh", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "consensus.nii.gz").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_results(liver_and_spleen(GRIDS["axial"]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*RESULT_FILES, ".unfinished-fresh"}


def test_a_second_result_replaces_the_first_and_nothing_else(tmp_path):
    grid = GRIDS["axial"]
    (tmp_path / "notes.txt").write_text("mine")
    write_results(liver_and_spleen(grid), tmp_path)
    write_results(result_of([group_of(SPLEEN, grid, [ball(SHAPE, (9, 9, 5), 3)], "")], grid), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *RESULT_FILES}
    assert len(json.loads((tmp_path / "proposals.json").read_text(encoding="utf-8"))["organs"]) == 1
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def everything_under(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("step", ["write_segmentation", "write_volume", "contact_sheet", "describe"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_step_leaves_nothing_of_it_behind(tmp_path, monkeypatch, step, failure):
    grid = GRIDS["axial"]
    write_results(liver_and_spleen(grid), tmp_path / "old")
    before = everything_under(tmp_path)

    def fail(*_):
        raise failure

    monkeypatch.setattr(export, step, fail)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    for folder in (tmp_path / "new" / "deeper", tmp_path / "old"):
        with pytest.raises(expected) as raised:
            write_results(liver_and_spleen(grid), folder)
        assert everything_under(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
    if isinstance(raised.value, OutputError):
        assert str(tmp_path / "old") in raised.value.message
        assert "unfinished" not in raised.value.message
        assert "room" in raised.value.remedy


@pytest.mark.parametrize("failure", [OSError(errno.EACCES, "in use"), SystemExit(143)])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", range(12))
def test_a_failure_between_the_renames_leaves_the_earlier_result(tmp_path, monkeypatch, failure, when, count):
    """The failure comes right before or right after one of the renames, of which there are at most 12."""
    grid = GRIDS["axial"]
    rename, done, together = Path.replace, [], []
    (tmp_path / "old").mkdir()
    for name in RESULT_FILES:
        (tmp_path / "old" / name).write_text("earlier")
    before = everything_under(tmp_path)
    result = result_of([group_of(SPLEEN, grid, [ball(SHAPE, (9, 9, 5), 3)], "")], grid)
    monkeypatch.setattr(export, "_write_all", lambda _, f: [(f / n).write_text("new") for n in RESULT_FILES])

    def fail_once(path, target):
        done.append(target)
        if len(done) == count + 1 and when == "before":
            raise failure
        moved = rename(path, target)
        texts = {
            (target.parent / name).read_text(encoding="utf-8")
            for name in RESULT_FILES
            if (target.parent / name).exists()
        }
        together.append((target.parent / "proposals.json").exists() and len(texts) > 1)
        if len(done) == count + 1 and when == "after":
            raise failure
        return moved

    monkeypatch.setattr(Path, "replace", fail_once)
    for folder in ["old", "new"] if count < len(RESULT_FILES) else ["old"]:
        done.clear()
        with pytest.raises(OutputError if isinstance(failure, OSError) else type(failure)):
            write_results(result, tmp_path / folder)
        assert everything_under(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
        assert {path.name for path in (tmp_path / "old").iterdir()} == set(RESULT_FILES)
        assert not any(together)  # a description lies only beside files of its own result


def test_a_folder_with_the_name_of_a_result_file_is_left_alone(tmp_path):
    write_results(liver_and_spleen(GRIDS["axial"]), tmp_path)
    (tmp_path / "contact_sheet.png").unlink()
    (tmp_path / "contact_sheet.png").mkdir()
    (tmp_path / "contact_sheet.png" / "mine.txt").write_text("mine")
    before = everything_under(tmp_path)
    with pytest.raises(OutputError, match=r"contact_sheet.png” is a folder"):
        write_results(liver_and_spleen(GRIDS["axial"]), tmp_path)
    assert everything_under(tmp_path) == before


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The operating system refuses to write more than `size` bytes to a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kilobytes", [1, 10])  # the segmentation does not fit; the contact sheet does not
def test_a_disk_that_takes_no_more_bytes_is_said_in_a_sentence(tmp_path, kilobytes):
    with files_no_larger_than(1024 * kilobytes), pytest.raises(OutputError) as raised:
        write_results(liver_and_spleen(GRIDS["axial"]), tmp_path / "out")
    assert "room" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    for folder in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_results(liver_and_spleen(GRIDS["axial"]), folder)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "not a folder"


def test_the_same_result_gives_the_same_segmentation_file(tmp_path):
    paths = [write_results(liver_and_spleen(GRIDS["axial"]), tmp_path / name) for name in "ab"]
    first, second = (files["proposals.seg.nrrd"].read_bytes() for files in paths)
    assert first == second


def test_the_contact_sheet_in_the_folder_is_the_one_returned(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(export, "contact_sheet", contact_sheet)
    result = liver_and_spleen(GRIDS["axial"])
    with Image.open(write_results(result, tmp_path)["contact_sheet.png"]) as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(contact_sheet(result)))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_slicer_reads_the_segmentation(tmp_path, grid):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed here")
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    result = liver_and_spleen(grid)
    scene, node = slicer.vtkMRMLScene(), slicer.vtkMRMLSegmentationNode()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(write_results(result, tmp_path)["proposals.seg.nrrd"]))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    for proposal in [p for group in result.sets for p in [group.consensus, *group.proposals]]:
        identifier = proposal.name.replace(" ", "_")
        segment = segmentation.GetSegment(identifier)
        tag = vtk.reference("")
        assert segment.GetTag("ProGiDiff.seed", tag)
        assert tag.get() == str(proposal.provenance.seed)
        assert segment.GetName() == proposal.name
        image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        assert node.GetBinaryLabelmapRepresentation(identifier, image)
        image.GetImageToWorldMatrix(matrix)
        affine = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        np.testing.assert_allclose(affine, grid.affine, atol=1e-6)
        first = image.GetExtent()[0::2]
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        found = np.argwhere(voxels.transpose(2, 1, 0)) + first
        np.testing.assert_array_equal(found, np.argwhere(proposal.mask))
