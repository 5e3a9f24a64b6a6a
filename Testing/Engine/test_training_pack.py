"""Data sets become packed cases, once; what changed is packed again, what is damaged too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from progidiff.errors import CasesError, OutputError, UsageError
from progidiff.prompts import organ_table
from progidiff.training import pack
from progidiff.training.case_store import PackedCase, load_packed
from progidiff.training.cases import find_cases
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
    assert {case.id for case in load_packed(tmp_path)} == set(first)


def test_changed_and_damaged_cases_are_packed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(data, tmp_path)
    os.utime(data / "case_1_image.nii.gz", (1, 1))
    damaged = tmp_path / "CT__case_2.npz"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (tmp_path / "labels__case_3.npz").unlink()
    read = count_reads(monkeypatch)
    assert len(packed(data, tmp_path)) == 4
    assert read == ["case_1", "case_2", "case_3"]


def test_nothing_half_written_is_left(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: PackedCase, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PackedCase, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        packed(data, tmp_path)
    assert not list(tmp_path.glob("*.npz"))


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
    assert [path.name for path in (tmp_path / "cache").glob("*.npz")] == ["CT__case_1.npz"]


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
