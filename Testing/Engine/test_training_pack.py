"""Data sets become packed cases, once; what changed is packed again, what is damaged too."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from progidiff.errors import CasesError, OutputError, UsageError
from progidiff.prompts import organ_table
from progidiff.training import case_store, pack, pack_cache
from progidiff.training.case_store import PackedCase
from progidiff.training.cases import find_cases
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.pack_cache import read_case, write_case
from progidiff.training.slice_data import OrganSlices
from progidiff.training.volume_data import OrganVolumes
from progidiff.volumes import Volume, write_volume
from training_samples import phantom, small_phantoms, write_cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"), images=3, label_maps=1)


def packed(data: Path, cache: Path, *exclude: str) -> dict[str, PackedCase]:
    cases, _ = pack.select_cases([data], exclude)
    return {case.id: case for case in pack.pack_cases(cases, cache)}


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases that are really read from now on."""
    read: list[str] = []
    original = pack._pack
    monkeypatch.setattr(pack, "_pack", lambda case: read.append(case.id) or original(case))
    return read


def test_images_and_labels_are_packed(data: Path, tmp_path: Path) -> None:
    cases = packed(data, tmp_path)
    assert list(cases) == ["case_0", "case_1", "case_2", "case_3"]
    assert [c.domain for c in cases.values()] == ["CT", "CT", "CT", "labels"]
    first = cases["case_0"]
    assert first.image is not None and first.image.shape == first.label.shape == (12, 48, 48)
    assert first.organs == tuple(range(1, 14)) and first.spacing == pytest.approx((16, 7.2, 7.2))
    assert cases["case_3"].image is None


def test_numbers_and_places_survive(data: Path, tmp_path: Path) -> None:
    image, label = phantom(0)
    case = packed(data, tmp_path)["case_0"]
    upright = label.array.transpose(2, 1, 0)  # the phantom is stored in the canonical order already
    assert np.array_equal(case.label, upright)
    expected = np.clip((image.array + 125) / 400, 0, 1).transpose(2, 1, 0) * 255
    assert case.image is not None and np.abs(case.image - expected).max() <= 1.5


@pytest.mark.parametrize("flip", [(0,), (2,), (0, 1, 2)])
def test_stored_in_another_order_it_packs_the_same(tmp_path: Path, data: Path, flip: tuple[int, ...]) -> None:
    for volume, kind in zip(phantom(0), ("image", "label"), strict=True):
        affine = volume.affine.copy()
        for axis in flip:
            affine[:, 3] += affine[:, axis] * (volume.shape[axis] - 1)
            affine[:, axis] *= -1
        turned = Volume(np.flip(volume.array, flip).transpose(1, 0, 2), affine[:, [1, 0, 2, 3]], "CT")
        write_volume(turned, tmp_path / f"case_0_{kind}.nii.gz")
    (tmp_path / "case_labels.json").write_text((data / "case_labels.json").read_text(encoding="utf-8"))
    straight, turned_case = packed(data, tmp_path / "a")["case_0"], packed(tmp_path, tmp_path / "b")["case_0"]
    assert np.array_equal(straight.label, turned_case.label)
    assert straight.image is not None and np.array_equal(straight.image, turned_case.image)


def test_packed_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(data, tmp_path)
    read = count_reads(monkeypatch)
    again = packed(data, tmp_path)
    assert not read
    for name, case in first.items():
        assert np.array_equal(case.label, again[name].label) and case.spacing == again[name].spacing
        assert (case.organs, case.domain) == (again[name].organs, again[name].domain)


def test_changed_and_damaged_cases_are_packed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(data, tmp_path)
    os.utime(data / "case_1_image.nii.gz", (1, 1))
    only(tmp_path, "labels__case_3.*").unlink()
    only(tmp_path, "CT__case_2.*").write_bytes(b"")
    read = count_reads(monkeypatch)
    assert len(packed(data, tmp_path)) == 4
    assert read == ["case_1", "case_2", "case_3"]
    assert len(list(tmp_path.glob("*.npy"))) == 4  # what they replace is gone


@pytest.mark.parametrize("left", [0, 20, 1000, -1])
def test_a_truncated_file_is_packed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    whole = packed(data, tmp_path)["case_2"]
    damaged = only(tmp_path, "CT__case_2.*")
    damaged.write_bytes(damaged.read_bytes()[:left])
    with pytest.raises(CasesError, match="case_2"):
        pack.load_cases(tmp_path, ["case_2"])
    read = count_reads(monkeypatch)
    again = packed(data, tmp_path)["case_2"]
    assert read == ["case_2"] and again.boxes.keys() == whole.boxes.keys()


@pytest.mark.parametrize("note", ["", "[]", "{", '{"file": "CT__case_2.npy", "made_from": 1}'])
def test_a_damaged_note_is_written_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    packed(data, tmp_path)
    (tmp_path / "case_2.json").write_text(note)
    read = count_reads(monkeypatch)
    packed(data, tmp_path)
    assert read == ["case_2"]


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_nothing_half_written_is_left(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        packed(data, tmp_path)
    assert not list(tmp_path.iterdir())


# Mapped arrays


def in_memory(case: PackedCase) -> PackedCase:
    assert case.image is not None
    return replace(case, image=np.array(case.image), label=np.array(case.label))


@pytest.mark.filterwarnings("error:.*not writable")
@pytest.mark.parametrize(
    "draws",
    [
        lambda cases: OrganSlices(cases, 32),
        lambda cases: OrganVolumes(cases, 32, (8,)),
        lambda cases: CoarsePatches(cases, (8, 8, 8), 12.0),
    ],
    ids=["slices", "volumes", "patches"],
)
def test_mapped_cases_teach_what_those_in_memory_do(
    data: Path, tmp_path: Path, draws: Callable[[list[PackedCase]], Any]
) -> None:
    mapped = [case for case in packed(data, tmp_path).values() if case.image is not None]
    assert not any(case.label.flags.writeable for case in mapped)
    batches = []
    for cases in (mapped, [in_memory(case) for case in mapped]):
        torch.manual_seed(0)
        batch = draws(cases).batch(4, np.random.default_rng(0))
        batches.append(batch if isinstance(batch, tuple) else tuple(vars(batch).values()))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_boxes_are_kept_with_the_case(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = packed(data, tmp_path)["case_0"]
    for organ, (low, high) in in_memory(case).boxes.items():
        where = np.argwhere(case.label == organ)
        assert np.array_equal(low, where.min(0)) and np.array_equal(high, where.max(0))
        assert np.array_equal(case.boxes[organ], (low, high))
    assert replace(case, organs=(6,)).boxes.keys() == {6}
    monkeypatch.setattr(case_store, "find_objects", None)  # would look at every voxel
    assert packed(data, tmp_path)["case_0"].boxes.keys() == case.boxes.keys()


@pytest.mark.parametrize(("pixel_mm", "stride"), [(0.9, 1), (0.6, 2), (0.35, 3)])
def test_only_what_is_finer_than_the_finest_crop_is_thinned(pixel_mm: float, stride: int) -> None:
    """A chequerboard of single voxels becomes grey rather than a pattern; labels keep their place."""
    rows, columns = np.indices((24, 24))
    chequered = np.where((rows + columns) % 2, 1.0, -1.0)[..., None].astype(np.float32)
    label = np.zeros((24, 24, 1), np.uint8)
    label[6:12, 12:18] = 6
    affine = np.diag([-pixel_mm, -pixel_mm, 5.0, 1.0])
    case = case_store.pack_case("a", chequered, Volume(label, affine), (6,), "CT")
    assert case.image is not None and case.spacing == pytest.approx((5, pixel_mm * stride, pixel_mm * stride))
    np.testing.assert_array_equal(case.label[0], label[::stride, ::stride, 0].T)
    inner = case.image[0, 2:-2, 2:-2].astype(float)
    assert np.ptp(inner) == 255 if stride == 1 else np.ptp(inner) < 40


def test_specks_have_no_box() -> None:
    label = np.zeros((4, 8, 8), np.uint8)
    label[1, 2, :7], label[2:, 3:6, 3:7] = 1, 6
    case = PackedCase("a", None, label, (5, 2, 2), (1, 4, 6), "CT")
    assert [(organ, [low.tolist(), high.tolist()]) for organ, (low, high) in case.boxes.items()] == [
        (6, [[2, 3, 3], [3, 5, 6]])
    ]


def test_a_reader_keeps_what_another_run_packs_anew(tmp_path: Path) -> None:
    def flat(value: int) -> PackedCase:
        return PackedCase("a", None, np.full((3, 4, 5), value, np.uint8), (5, 2, 2), (1, 2), "CT")

    write_case(tmp_path, flat(1), "old")
    readers = [read_case(tmp_path, "a"), read_case(tmp_path, "a", "old")]
    write_case(tmp_path, flat(2), "new")
    assert read_case(tmp_path, "a", "old") is None
    readers.append(read_case(tmp_path, "a", "new"))
    assert [int(case.label.max()) for case in readers if case is not None] == [1, 1, 2]


def test_more_cases_than_files_may_be_open(tmp_path: Path) -> None:
    """Every mapped file stays open, and TotalSegmentator has more than many systems allow at first."""
    resource = pytest.importorskip("resource", reason="only macOS and Linux limit open files")
    write_case(tmp_path, PackedCase("a", None, np.ones((1, 5, 5), np.uint8), (5, 2, 2), (1,), "CT"), "")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    pack_cache._allow_many_open_files.cache_clear()
    try:
        assert len(pack.load_cases(tmp_path, ["a"] * 300)) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_cache_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError):
        packed(data, tmp_path / "cache")


def test_folds_leave_out_every_case_once(data: Path) -> None:
    aside = [pack.select_cases([data], fold=(n, 3))[1] for n in (1, 2, 3)]
    assert aside == [["case_0"], ["case_1"], ["case_2"]]
    kept, _ = pack.select_cases([data], fold=(2, 3))
    assert [case.id for case in kept] == ["case_0", "case_2", "case_3"]  # label maps stay


@pytest.mark.parametrize("fold", [(0, 3), (4, 3), (1, 1), (1, 0)])
def test_folds_that_do_not_exist(data: Path, fold: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        pack.select_cases([data], fold=fold)


def test_excluding(data: Path) -> None:
    kept, aside = pack.select_cases([data], ["case_1"])
    assert "case_1" not in [case.id for case in kept] and aside == ["case_1"]
    with pytest.raises(CasesError, match="case_9"):
        pack.select_cases([data], ["case_9"])
    with pytest.raises(CasesError, match="left"):
        pack.select_cases([data], [f"case_{n}" for n in range(4)])


def test_the_same_folder_twice_is_refused(data: Path) -> None:
    with pytest.raises(CasesError, match="Several cases"):
        pack.select_cases([data, data])


def test_two_data_sets_with_the_same_names(data: Path, tmp_path: Path) -> None:
    other = write_cases(tmp_path / "other", images=1, label_maps=0)
    kept, _ = pack.select_cases([data, other])
    assert {"other-case_0", f"{data.name}-case_0", "case_1"} <= {case.id for case in kept}
    assert len({case.id for case in pack.pack_cases(kept, tmp_path / "cache")}) == 5


def test_a_folder_of_masks_per_case(tmp_path: Path) -> None:
    image, label = phantom(0)
    folder = tmp_path / "s0001"
    (folder / "segmentations").mkdir(parents=True)
    write_volume(image, folder / "ct.nii.gz")
    for organ in ("liver", "spleen"):
        mask = (label.array == organ_table().by_id(organ).label).astype(np.uint8)
        write_volume(Volume(mask, label.affine), folder / "segmentations" / f"{organ}.nii.gz")
    (case,) = packed(tmp_path, tmp_path / "cache").values()
    assert case.organs == (1, 6) and set(np.unique(case.label)) == {0, 1, 6}


def test_a_damaged_image_is_named(data: Path, tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "broken", images=1, label_maps=0)
    file = folder / "case_0_image.nii.gz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(Exception, match="case_0_image") as caught:
        packed(folder, tmp_path / "cache")
    assert type(caught.value).__name__ in ("VolumeError", "CasesError")


def test_all_damaged_cases_are_named_at_once_and_the_others_are_packed(tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "broken", images=3, label_maps=0)
    for number in (0, 2):
        file = folder / f"case_{number}_image.nii.gz"
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CasesError, match="--exclude case_0,case_2 to") as caught:
        packed(folder, tmp_path / "cache")
    assert "case_0 (" in caught.value.message and "case_1" not in caught.value.message
    assert [path.name.split(".")[0] for path in (tmp_path / "cache").glob("*.npy")] == ["CT__case_1"]


def test_phantoms_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack.pack_phantoms(small_phantoms(3), tmp_path)
    assert [c.id for c in first] == ["phantom_1000", "phantom_1001", "phantom_1002"]
    assert all(c.domain == "phantom" and c.image is not None for c in first)
    monkeypatch.setattr(pack, "make_phantom", None)
    again = pack.pack_phantoms(small_phantoms(3), tmp_path)
    assert all(np.array_equal(a.label, b.label) for a, b in zip(first, again, strict=True))


def test_label_maps_are_painted(data: Path, tmp_path: Path) -> None:
    cases = find_cases(data)
    painted = pack.pack_paintings(cases, small_phantoms(0, paintings=2), tmp_path)
    assert [c.id for c in painted] == ["case_3_painted_0", "case_3_painted_1"]
    assert painted[0].image is not None and not np.array_equal(painted[0].image, painted[1].image)
    assert np.array_equal(painted[0].label, painted[1].label) and set(np.unique(painted[0].label)) > {0}


def test_continuing_without_the_data(data: Path, tmp_path: Path) -> None:
    cases = packed(data, tmp_path)
    again = pack.load_cases(tmp_path, list(cases))
    assert [c.id for c in again] == list(cases)
    with pytest.raises(CasesError, match="--data"):
        pack.load_cases(tmp_path, ["case_77"])
