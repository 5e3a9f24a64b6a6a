"""Tumor labels of data sets: read in every layout, packed beside the organs, asked for in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.cli import train_textdiffseg
from progidiff.cli.main import main
from progidiff.errors import CasesError
from progidiff.prompts import organ_table
from progidiff.training import pack, volume_data
from progidiff.training.case import Case
from progidiff.training.case_store import PackedCase, pack_case
from progidiff.training.cases import find_cases
from progidiff.training.finding_names import match_findings
from progidiff.training.pack_cache import cached_case, read_case, write_case
from progidiff.training.textdiffseg_run import Recipe, TextDiffSegRun
from progidiff.training.volume_data import OrganVolumes, VolumeBatch
from progidiff.volumes import Volume, write_volume
from textdiffseg_samples import packed_case, tokenizer
from tiny_models import tiny_locator

LIVER, PANCREAS, LIVER_TUMOR, PANCREAS_TUMOR = 6, 11, 14, 15
TUMORS_IN = {f.within: f.id for f in organ_table().findings}
SHAPE = (4, 5, 6)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def rows(*values: int) -> np.ndarray:
    """The n-th value fills the voxels with index n along the second axis."""
    array = np.zeros(SHAPE, np.uint8)
    for j, value in enumerate(values):
        array[:, j] = value
    return array


def image(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, affine), path)


def nnunet(folder: Path, labels: dict, array: np.ndarray, suffix: str = "_0000") -> Path:
    write(folder / "imagesTr" / f"case_1{suffix}.nii.gz", image(array.shape))
    write(folder / "labelsTr" / "case_1.nii.gz", array)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "modality": {"0": "CT"}}))
    return folder


def both(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The label map of organs, and the one with findings."""
    return case.load_label().array, case.load_label(findings=True).array


# Readers


@pytest.mark.parametrize(
    ("labels", "organ", "tumor"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, LIVER, LIVER_TUMOR),  # MSD Task03
        ({"0": "background", "1": "pancreas", "2": "cancer"}, PANCREAS, PANCREAS_TUMOR),  # MSD Task07
        ({"background": 0, "liver": 1, "tumor": 2}, LIVER, LIVER_TUMOR),  # LiTS
        ({"background": 0, "liver": [1, 2], "tumour": 2}, LIVER, LIVER_TUMOR),  # as regions
        ({"background": 0, "pancreas": 1, "pancreatic_lesion": [2]}, PANCREAS, PANCREAS_TUMOR),
        ({"Leber": 1, "Lebertumor": 2}, LIVER, LIVER_TUMOR),
    ],
)
def test_nnunet_tumors_are_read_and_count_as_their_organ(
    tmp_path: Path, labels: dict, organ: int, tumor: int
) -> None:
    (case,) = find_cases(nnunet(tmp_path, labels, rows(0, 1, 2, 1), suffix=""))
    organs, marked = both(case)
    np.testing.assert_array_equal(organs, rows(0, organ, organ, organ))
    np.testing.assert_array_equal(marked, rows(0, organ, tumor, organ))
    assert (case.findings, case.unclear) == ({organ_table().by_label(tumor).id}, ())
    assert case.organs == {organ_table().by_label(organ).id}


def test_a_cyst_among_the_masses_is_no_tumor(tmp_path: Path) -> None:
    labels = {"right kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "cyst": 3}
    (case,) = find_cases(nnunet(tmp_path, labels, rows(0, 1, 2, 3)))
    organs, marked = both(case)
    np.testing.assert_array_equal(organs, rows(0, 2, 2, 2))
    np.testing.assert_array_equal(marked, rows(0, 2, 16, 2))


def test_kidneys_without_a_side_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """KiTS: which kidney a tumor is in is not said."""
    with pytest.raises(CasesError, match="right and the left one apart: kidney"):
        find_cases(nnunet(tmp_path, {"kidney": 1, "tumor": 2, "cyst": 3}, rows(1, 2, 3)))


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ({"liver": 1, "kidney": 2, "tumor": 3}, "tumor"),
        ({"liver": 1, "pancreas": 2, "tumor": 3}, "tumor"),
        ({"liver": 1, "colon": 2, "cancer": 3}, "cancer"),
        ({"right kidney": 1, "left kidney": 2, "kidney tumor": 3}, "kidney tumor"),
        ({"liver": 1, "spleen": 2, "pancreas tumor": 3}, "pancreas tumor"),  # no pancreas to look in
    ],
)
def test_ambiguous_tumors_are_left_out_with_a_word(tmp_path: Path, labels: dict, word: str) -> None:
    (case,) = find_cases(nnunet(tmp_path, labels, rows(0, 1, 2, 3)))
    organs, marked = both(case)
    assert case.unclear == (word,)
    assert not case.findings
    assert not organs[:, 3].any()
    np.testing.assert_array_equal(organs, marked)
    assert pack.unclear_findings([tmp_path]) == [word]


def test_training_says_which_tumors_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = nnunet(tmp_path / "data", {"liver": 1, "pancreas": 2, "tumor": 3}, rows(0, 1, 2, 3))
    monkeypatch.setattr(train_textdiffseg, "train", lambda *_: "trained")
    assert main(["train", "textdiffseg", "--data", str(data), "--output", str(tmp_path / "run")]) == 0
    assert "their organ is not certain or not labelled: tumor\ntrained" in capsys.readouterr().err


def test_totalsegmentator_folders_with_lesions(tmp_path: Path) -> None:
    masks = {
        "liver": rows(0, 1, 0, 1),
        "liver_lesions": rows(0, 0, 1),
        "kidney_left": rows(0, 0, 0, 0, 1),
        "kidney_tumor_left": rows(),
        "pancreas_tumor": rows(1),  # without a pancreas
    }
    write(tmp_path / "s0001" / "ct.nii.gz", image())
    for name, mask in masks.items():
        write(tmp_path / "s0001" / "segmentations" / f"{name}.nii.gz", mask)
    (case,) = find_cases(tmp_path)
    organs, marked = both(case)
    assert case.organs == {"liver", "left_kidney"}
    assert case.findings == {"liver_tumor", "left_kidney_tumor"}  # an empty mask says that there is none
    assert case.unclear == ("pancreas_tumor",)
    np.testing.assert_array_equal(organs, rows(0, 6, 6, 6, 3))
    np.testing.assert_array_equal(marked, rows(0, 6, 14, 6, 3))


def test_flat_folders_with_lesions(tmp_path: Path) -> None:
    write(tmp_path / "lits_1_image.nii.gz", image())
    write(tmp_path / "lits_1_label.nii.gz", rows(0, 7, 9))
    (tmp_path / "lits_labels.ctbl").write_text("# 10 values\n7 liver 1 1 1 255\n9 liver_tumor 1 1 1 255\n")
    write(tmp_path / "other_label.nii.gz", rows(0, 1, 2))
    lits, other = find_cases(tmp_path, labels={1: "pancreas", 2: "lesion"})
    np.testing.assert_array_equal(both(lits)[1], rows(0, LIVER, LIVER_TUMOR))
    np.testing.assert_array_equal(both(other)[1], rows(0, PANCREAS, PANCREAS_TUMOR))


ORGANS = st.lists(st.sampled_from([o.name for o in organ_table()]), unique=True, max_size=4)
BARE = st.sampled_from(["tumor", "Tumour", "cancer", "lesions", "MASS", "metastases"])


@settings(max_examples=60, deadline=None)
@given(organs=ORGANS, bare=BARE, others=st.sets(st.sampled_from(["kidney", "duodenum"])), data=st.data())
def test_a_bare_tumor_is_the_one_organ_s_or_nobody_s(
    organs: list[str], bare: str, others: set[str], data: st.DataObject
) -> None:
    names = data.draw(st.permutations([*organs, bare, "background", "cyst", *sorted(others)]))
    found = match_findings(tuple(names))
    sole = organ_table().by_name(organs[0]).id if len(organs) == 1 and not others else ""
    if sole in TUMORS_IN:
        assert (found.ids, found.unclear) == ({bare: TUMORS_IN[sole]}, ())
    else:
        assert (found.ids, found.unclear) == ({}, (bare,))


@settings(max_examples=60, deadline=None)
@given(finding=st.sampled_from(organ_table().findings), data=st.data())
def test_every_name_of_a_finding_is_that_finding_or_unclear(finding, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(finding.names_in_labels))
    found = match_findings(("right kidney", "left kidney", "liver", "pancreas", "spleen", name.upper()))
    if found.unclear:  # names that both kidneys share
        assert finding.side and "left" not in name and "right" not in name
    else:
        assert list(found.ids.values()) == [finding.id]


# Packing


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), annotated=st.sets(st.sampled_from([14, 15, 17])))
def test_packed_findings_lie_in_their_organs(
    tmp_path_factory: pytest.TempPathFactory, seed: int, annotated: set[int]
) -> None:
    values = [0, 6, 11, 3, *sorted(annotated)]
    array = np.random.default_rng(seed).choice(values, SHAPE).astype(np.uint8)
    case = pack_case("a", None, Volume(array, AFFINE), (3, 6, 11), "CT", tuple(sorted(annotated)))
    folder = tmp_path_factory.mktemp("packed")
    write_case(folder, case, "")
    again = read_case(folder, "a")
    assert again is not None
    assert again.annotated_findings == tuple(sorted(annotated))
    assert np.array_equal(again.label, case.label)
    assert set(np.unique(case.label)) <= {0, 3, 6, 11}
    if not annotated:
        assert again.findings is None
        return
    for number in annotated:
        organ = organ_table().by_id(organ_table().by_label(number).within).label
        assert (again.label[again.findings == number] == organ).all()
        assert (again.findings == number).sum() == (array == number).sum()


def test_cases_of_an_earlier_packing_are_packed_anew(tmp_path: Path) -> None:
    label = np.full((3, 4, 5), 6, np.uint8)
    np.savez_compressed(tmp_path / "CT__old.npz", label=label, image=label, organs=np.array([6]))
    (tmp_path / "old.json").write_text('{"file": "CT__old.npz", "made_from": "data"}')
    assert read_case(tmp_path, "old", "data") is None
    case = cached_case(tmp_path, "old", "data", lambda: PackedCase("", label, label, (5, 2, 2), (6,), "CT"))
    assert np.array_equal(case.label, label) and not case.knows_finding(LIVER_TUMOR)
    assert read_case(tmp_path, "old", "data") is not None
    assert not list(tmp_path.glob("*.npz"))


def test_annotated_but_absent_survives_packing(tmp_path: Path) -> None:
    nnunet(tmp_path / "data", {"liver": 1, "cancer": 2}, rows(0, 1, 1, 1, 1))
    for _ in range(2):  # made, then taken from the cache
        (case,) = pack.pack_cases(find_cases(tmp_path / "data"), tmp_path / "cache")
        assert (case.organs, case.findings, case.annotated_findings) == ((LIVER,), None, (LIVER_TUMOR,))


# Pieces


def with_lesion() -> PackedCase:
    """A bright liver with a dark ball in its middle, labelled as tumor."""
    case = packed_case()
    k, j, i = np.mgrid[:24, :48, :48]
    lesion = ((k - 12) / 5) ** 2 + ((j - 24) / 6) ** 2 + ((i - 18) / 6) ** 2 < 1
    image = np.where(lesion, 10, case.image).astype(np.uint8)
    findings = np.where(lesion, LIVER_TUMOR, 0).astype(np.uint8)
    return replace(case, image=image, organs=(LIVER,), findings=findings, annotated_findings=(LIVER_TUMOR,))


def batches(case: PackedCase, lesions: float, count: int = 6) -> list[VolumeBatch]:
    data, rng = OrganVolumes([case], 32, (8,), appearance=0.0, lesions=lesions), np.random.default_rng(0)
    return [data.batch(4, rng) for _ in range(count)]


def test_real_lesions_are_asked_for_before_synthesised_ones() -> None:
    seen = {LIVER: 0, LIVER_TUMOR: 0}
    for batch in batches(with_lesion(), lesions=1.0):
        for grey, mask, label, asked in zip(
            batch.image, batch.mask, batch.label, batch.asked.tolist(), strict=True
        ):
            dark = (grey[0] < -0.6) & (label == LIVER)
            if dark.sum() < 40:
                continue  # the real one is out of sight, or nearly
            seen[asked] += 1
            wanted = dark if asked == LIVER_TUMOR else label == LIVER
            inside = mask[0] > 0.5
            assert (wanted & inside).sum() > 0.8 * (wanted | inside).sum()
    assert min(seen.values()) >= 4


def test_no_lesions_are_asked_for_where_organs_alone_are_learnt() -> None:
    for batch in batches(with_lesion(), lesions=0.0, count=3):
        assert set(batch.asked.tolist()) == {LIVER}


@pytest.mark.parametrize(
    ("domain", "annotated", "teaches"),
    [
        ("CT", (LIVER_TUMOR,), True),
        ("CT", (PANCREAS_TUMOR,), False),
        ("CT", (), False),
        ("phantom", (), True),
    ],
)
def test_only_where_it_is_known_absence_is_taught(
    monkeypatch: pytest.MonkeyPatch, domain: str, annotated: tuple[int, ...], teaches: bool
) -> None:
    monkeypatch.setattr(volume_data, "lesion_cover", lambda *_: None)  # nothing is put in
    case = replace(packed_case(domain), organs=(LIVER,), annotated_findings=annotated)
    drawn = batches(case, lesions=1.0)
    asked = torch.cat([b.asked for b in drawn])
    empty = torch.cat([b.mask for b in drawn]).flatten(1).sum(1) == 0
    assert torch.equal(empty, asked == LIVER_TUMOR)
    assert bool(empty.any()) == teaches


# Training


def test_a_tumor_set_on_disk_teaches_its_findings(tmp_path: Path) -> None:
    source = with_lesion()
    label = np.where(source.findings > 0, 2, source.label == LIVER).astype(np.uint8).transpose(2, 1, 0)
    grey = source.image.transpose(2, 1, 0).astype(np.int16) - 100
    affine = np.diag([-3.0, -3.0, 5.0, 1.0])
    nnunet(tmp_path / "data", {"0": "background", "1": "liver", "2": "cancer"}, label)
    write(tmp_path / "data" / "imagesTr" / "case_1_0000.nii.gz", grey, affine)
    write(tmp_path / "data" / "labelsTr" / "case_1.nii.gz", label, affine)
    cases, _ = pack.select_cases([tmp_path / "data"])
    (case,) = pack.pack_cases(cases, tmp_path / "cache")
    assert np.array_equal(case.findings, source.findings)
    tokenizer().save_pretrained(tmp_path / "run" / "tokenizer")
    recipe = Recipe(size="tiny", vocabulary=200, depths=(8,))
    run = TextDiffSegRun(tmp_path / "run", [case], tiny_locator(), recipe, device="cpu")
    assert "real ones, looked for in 1 of the cases" in run._card(None)
    stage = run.stage
    asked: list[int] = []
    draw = stage.wording.draw
    stage.wording.draw = lambda numbers, rng: asked.extend(numbers.tolist()) or draw(numbers, rng)
    total = torch.stack(list(stage(6, np.random.default_rng(1)).values())).sum()
    total.backward()
    assert {LIVER, LIVER_TUMOR} == set(asked)
    assert torch.isfinite(total)
    assert bool(stage.label_autoencoder.encoder[0].weight.grad.any())
