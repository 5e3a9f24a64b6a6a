"""Prompts that ask for tumors and the like: which finding is meant, and what is said if it is not drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from progidiff.errors import FindingError, PromptError
from progidiff.prompts import organ_table, parse_prompt

FINDINGS = organ_table().finding_ids
OF_KIDNEYS = ["right_kidney_tumor", "left_kidney_tumor"]

UNDERSTOOD = {
    "hepatic lesions": ["liver_tumor"],
    "tumor in the liver": ["liver_tumor"],
    "outline all hepatic metastases please": ["liver_tumor"],
    "segment the liver and hepatic metastases": ["liver", "liver_tumor"],
    "mass of the pancreas, spleen": ["pancreas_tumor", "spleen"],
    "pancreatic ductal adenocarcinoma": ["pancreas_tumor"],
    "renal masses": OF_KIDNEYS,
    "left renal mass": ["left_kidney_tumor"],
    "tumor of the left kidney": ["left_kidney_tumor"],
    "renal cell carcinoma on the right": ["right_kidney_tumor"],
    "tumors in both kidneys": OF_KIDNEYS,
    "Leberläsionen": ["liver_tumor"],
    "Leberlaesion": ["liver_tumor"],
    "hepatische Läsion": ["liver_tumor"],
    "Metastasen in der Leber": ["liver_tumor"],
    "linker Nierentumor": ["left_kidney_tumor"],
    "Nierenzellkarzinom rechts": ["right_kidney_tumor"],
    "Bauchspeicheldrüsenkrebs": ["pancreas_tumor"],
    "lésions hépatiques": ["liver_tumor"],
    "tumeur rénale gauche": ["left_kidney_tumor"],
    "métastases du foie": ["liver_tumor"],
    "lesiones hepáticas": ["liver_tumor"],
    "tumor pancreático": ["pancreas_tumor"],
    "masa renal derecha": ["right_kidney_tumor"],
}
OF_NO_MODEL = [
    "splenic lesion",
    "adrenal masses",
    "left adrenal adenoma",
    "gastric cancer",
    "kidney stones",
    "hepatic cyst",
    "Milzmetastasen",
    "Nebennierentumor",
    "Nierenzysten",
    "lésion splénique",
    "tumeur surrénalienne",
    "kyste du rein",
    "masa suprarrenal",
    "lesión esplénica",
]


@pytest.mark.parametrize(("prompt", "meant"), UNDERSTOOD.items())
def test_the_finding_is_understood(prompt: str, meant: list[str]) -> None:
    assert [target.organ for target in parse_prompt(prompt, FINDINGS)] == meant


@pytest.mark.parametrize("finding", organ_table().findings, ids=lambda finding: finding.id)
def test_every_name_of_the_table(finding) -> None:
    owners = {name: [f.id for f in organ_table().findings if name in f.names] for name in finding.names}
    for name, ids in owners.items():
        assert [target.organ for target in parse_prompt(name, FINDINGS)] == ids, name


def test_the_phrase_is_what_was_typed() -> None:
    liver, tumor = parse_prompt("liver and tumor of the left kidney", FINDINGS)
    assert (liver.text, tumor.text) == ("segment the liver", "segment the tumor of the left kidney")
    assert (tumor.phrase, tumor.side) == ("tumor of the left kidney", "left")


@pytest.mark.parametrize("prompt", UNDERSTOOD)
def test_a_model_of_organs_never_draws_the_organ_instead(prompt: str, models) -> None:
    models(plain="", able="liver_tumor pancreas_tumor right_kidney_tumor left_kidney_tumor")
    with pytest.raises(FindingError, match="This model draws organs only") as caught:
        parse_prompt(prompt)
    assert caught.value.remedy == "Choose the model able, which draws it, or ask for an organ."


@pytest.mark.parametrize("drawn", [(), FINDINGS])
@pytest.mark.parametrize("prompt", OF_NO_MODEL)
def test_what_no_model_draws(prompt: str, drawn: tuple[str, ...]) -> None:
    with pytest.raises(PromptError, match=f"“{prompt}” is not among the findings.*liver tumor") as caught:
        parse_prompt(prompt, drawn)
    assert "eave" not in caught.value.remedy


@pytest.mark.parametrize(
    "prompt", ["tumor", "liver and tumor", "the liver without lesions", "pancreas, mass"]
)
def test_a_finding_of_no_organ(prompt: str) -> None:
    with pytest.raises(PromptError, match="in which organ"):
        parse_prompt(prompt, FINDINGS)


def test_a_finding_that_this_model_does_not_draw(models) -> None:
    models(liver="liver_tumor", broken=None)
    with pytest.raises(FindingError, match=r"does not draw “pancreas tumor”, only .* liver tumor") as caught:
        parse_prompt("pancreas tumor", ["liver_tumor"])
    assert caught.value.remedy == "No model on this computer draws it; ask for an organ."


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs models by name, with the findings that each draws; None damages one."""
    monkeypatch.setenv("PROGIDIFF_MODELS", str(tmp_path))
    monkeypatch.setattr("progidiff.model_list.resources_folder", lambda: tmp_path / "of the project")

    def install(**findings: str | None) -> None:
        for name, said in findings.items():
            (tmp_path / name).mkdir()
            text = "{" if said is None else json.dumps({"findings": said})
            (tmp_path / name / "model_index.json").write_text(text)

    return install
