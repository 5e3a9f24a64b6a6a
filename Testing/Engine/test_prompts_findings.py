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
    # One word for a list of organs.
    "tumors of the liver and pancreas": ["liver_tumor", "pancreas_tumor"],
    "tumors of the liver, the pancreas, and the kidneys": ["liver_tumor", "pancreas_tumor", *OF_KIDNEYS],
    "lesions in the left kidney and in the liver": ["left_kidney_tumor", "liver_tumor"],
    "tumors of the left and right kidney": OF_KIDNEYS,
    "hepatic, pancreatic and left renal masses": ["liver_tumor", "pancreas_tumor", "left_kidney_tumor"],
    "hepatische und renale Tumoren": ["liver_tumor", *OF_KIDNEYS],
    "Tumoren der Leber und der Bauchspeicheldrüse": ["liver_tumor", "pancreas_tumor"],
    "Leber-, Pankreas- und Nierentumoren": ["liver_tumor", "pancreas_tumor", *OF_KIDNEYS],
    "métastases du foie et du pancréas": ["liver_tumor", "pancreas_tumor"],
    "tumores hepáticos y pancreáticos": ["liver_tumor", "pancreas_tumor"],
    # Nouns before a plural share it.
    "liver and pancreas tumors": ["liver_tumor", "pancreas_tumor"],
    "the liver & pancreatic lesions": ["liver_tumor", "pancreas_tumor"],
    "liver, pancreas and kidney tumors": ["liver_tumor", "pancreas_tumor", *OF_KIDNEYS],
    "liver, pancreas, and left kidney masses": ["liver_tumor", "pancreas_tumor", "left_kidney_tumor"],
    "right kidney and liver cancers": ["right_kidney_tumor", "liver_tumor"],
    "renal, liver and pancreas tumors": [*OF_KIDNEYS, "liver_tumor", "pancreas_tumor"],
    "Leber und Pankreas Metastasen": ["liver_tumor", "pancreas_tumor"],
    "Leber- und Pankreastumoren": ["liver_tumor", "pancreas_tumor"],
    "liver and pancreas tumors and the spleen": ["liver_tumor", "pancreas_tumor", "spleen"],
    # Organs that stand beside a finding without being its own.
    "liver and pancreas tumor": ["liver", "pancreas_tumor"],
    "the liver and the pancreas tumors": ["liver", "pancreas_tumor"],
    "liver, pancreas tumors": ["liver", "pancreas_tumor"],
    "pancreas, and liver tumors": ["pancreas", "liver_tumor"],
    "liver: pancreas and kidney tumors": ["liver", "pancreas_tumor", *OF_KIDNEYS],
    "liver and liver tumors": ["liver", "liver_tumor"],
    "both kidneys and liver tumors": ["right_kidney", "left_kidney", "liver_tumor"],
    "spleen and liver tumors": ["spleen", "liver_tumor"],
    "spleen, pancreas and liver tumors": ["spleen", "pancreas_tumor", "liver_tumor"],
    "liver tumor and pancreas": ["liver_tumor", "pancreas"],
    "tumors of the liver, and the spleen": ["liver_tumor", "spleen"],
    "tumor of the liver, pancreas": ["liver_tumor", "pancreas"],
    "tumor of the liver and the liver": ["liver_tumor", "liver"],
    "tumors of the liver and pancreas, spleen": ["liver_tumor", "pancreas_tumor", "spleen"],
    "tumors of the liver and pancreatic tumors": ["liver_tumor", "pancreas_tumor"],
    "spleen and hepatic and pancreatic lesions": ["spleen", "liver_tumor", "pancreas_tumor"],
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


def test_the_text_names_one_finding_of_a_list() -> None:
    liver, pancreas = parse_prompt("tumors of the liver and pancreas", FINDINGS)
    assert (liver.text, pancreas.text) == ("segment the tumors of the liver", "segment the pancreas tumor")
    assert pancreas.phrase == "tumors of the liver and pancreas"
    liver, pancreas = parse_prompt("Leber- und Pankreastumoren", FINDINGS)
    assert (liver.text, pancreas.text) == ("segment the liver tumor", "segment the Pankreastumoren")
    liver, pancreas = parse_prompt("liver and pancreas tumors", FINDINGS)
    assert (liver.text, pancreas.text) == ("segment the liver tumor", "segment the pancreas tumors")


def test_a_list_of_findings_is_refused_for_the_one_that_no_model_draws() -> None:
    with pytest.raises(PromptError, match="“tumors of the liver and the spleen” is not among the findings"):
        parse_prompt("tumors of the liver and the spleen", FINDINGS)
    with pytest.raises(PromptError, match="“spleen tumors” is not among the findings"):
        parse_prompt("liver and spleen tumors", FINDINGS)
    with pytest.raises(FindingError, match="does not draw “pancreas tumors”"):
        parse_prompt("liver and pancreas tumors", ["liver_tumor"])


def test_an_exception_takes_out_all_findings_of_a_list() -> None:
    prompt = "the liver and kidneys, but not the liver and pancreas tumors"
    assert [t.organ for t in parse_prompt(prompt, FINDINGS)] == ["liver", "right_kidney", "left_kidney"]


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
