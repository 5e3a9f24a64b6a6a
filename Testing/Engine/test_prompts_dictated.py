"""Prompts as they are dictated and typed in a hurry: what must not be silently misread."""

from __future__ import annotations

import pytest
from progidiff.errors import PromptError
from progidiff.prompts import organ_table, parse_prompt

ASKED = [
    ("kidney right, left", "right_kidney left_kidney"),
    ("left, right kidney", "right_kidney left_kidney"),
    ("liver, kidney right, left, spleen", "liver right_kidney left_kidney spleen"),
    ("kidney left, right, adrenal right", "left_kidney right_kidney right_adrenal_gland"),
    ("kidney left, right adrenal", "left_kidney right_adrenal_gland"),
    ("both kidneys, not left, right adrenal", "right_kidney"),
    ("rein g, d", "right_kidney left_kidney"),
    ("reins d. et g.", "right_kidney left_kidney"),
    ("riñones der. e izq.", "right_kidney left_kidney"),
    ("Nieren re. und li.", "right_kidney left_kidney"),
    ("re. und li. Niere", "right_kidney left_kidney"),
    ("Niere re. Nebenniere li.", "right_kidney left_adrenal_gland"),
    ("li + re Nebenniere", "right_adrenal_gland left_adrenal_gland"),
    ("kidneys but only the left", "left_kidney"),
    ("both kidneys, but only the left one", "left_kidney"),
    ("Nieren, aber nur die linke", "left_kidney"),
    ("les reins mais seulement le gauche", "left_kidney"),
    ("los riñones pero solo el izquierdo", "left_kidney"),
    ("beide Nieren, aber nur die rechte", "right_kidney"),
    ("liver and spleen, but only the left kidney", "liver spleen left_kidney"),
    ("liver w/o gallbladder", "liver"),
    ("liver witout gallbladder", "liver"),
    ("liver (not the spleen), pancreas, stomach", "liver pancreas stomach"),
    ("liver (without gallbladder), pancreas", "liver pancreas"),
    ("kidneys (not the left), liver", "right_kidney liver"),
    ("liver\nnot spleen\npancreas", "liver pancreas"),
    ("1. liver\n2. spleen\n3. pancreas", "liver spleen pancreas"),
    ("Niere re", "right_kidney"),
    ("Niere li.", "left_kidney"),
    ("li Niere", "left_kidney"),
    ("re Niere", "right_kidney"),
    ("Re: both kidneys", "right_kidney left_kidney"),
    ("re: left kidney", "left_kidney"),
    ("RE : liver", "liver"),
    ("Niere re: und Leber", "right_kidney liver"),
    ("re-segment the kidneys", "right_kidney left_kidney"),
    ("rein G", "left_kidney"),
    ("rein D", "right_kidney"),
    ("rein gche", "left_kidney"),
    ("riñón izq.", "left_kidney"),
    ("riñón dcho", "right_kidney"),
    ("ren dext.", "right_kidney"),
    ("glandula suprarenal izq", "left_adrenal_gland"),
    ("Niere li, Nebenniere re", "left_kidney right_adrenal_gland"),
    ("reins d'un patient", "right_kidney left_kidney"),
    ("kidneys right/left", "right_kidney left_kidney"),
    ("right/left kidney, liver", "right_kidney left_kidney liver"),
    ("kidney left/right adrenal", "left_kidney right_adrenal_gland"),
    ("left kidney/right adrenal", "left_kidney right_adrenal_gland"),
    ("Nieren re/li", "right_kidney left_kidney"),
    ("riñones izq/der", "right_kidney left_kidney"),
    ("riñones izq y der", "right_kidney left_kidney"),
    ("riñón der y bazo", "right_kidney spleen"),
    ("Nieren der linken Seite", "left_kidney"),
    ("Nieren der Patientin", "right_kidney left_kidney"),
    ("splenic and portal vein", "portal_and_splenic_vein"),
    ("Milz- und Pfortader", "portal_and_splenic_vein"),
    ("portal and splenic veins", "portal_and_splenic_vein"),
    ("liver and portal vein", "liver portal_and_splenic_vein"),
    ("Leber und Pfortader", "liver portal_and_splenic_vein"),
    ("Leber- und Milzsegmentierung", "liver spleen"),
    ("suprarenal aorta", "aorta"),
    ("hepatic IVC", "inferior_vena_cava"),
    ("suprarenal", "right_adrenal_gland left_adrenal_gland"),
    ("left suprarenal", "left_adrenal_gland"),
    ("segment 2 kidneys", "right_kidney left_kidney"),
    ("segment the liver", "liver"),
    ("vesícula", "gallbladder"),
    ("Right, now segment the kidneys", "right_kidney left_kidney"),
    ("Right, both kidneys please", "right_kidney left_kidney"),
    ("right. Kidneys.", "right_kidney left_kidney"),
    ("that's right, kidneys", "right_kidney left_kidney"),
    ("kidneys, right?", "right_kidney left_kidney"),
    ("right, kidney", "right_kidney"),
    ("kidney, right", "right_kidney"),
    ("Right: kidney", "right_kidney"),
    ("kidney left adrenal right", "left_kidney right_adrenal_gland"),
    ("kidney left adrenal gland left", "left_kidney left_adrenal_gland"),
    ("left kidney right adrenal", "left_kidney right_adrenal_gland"),
    ("left kidney and right kidney", "left_kidney right_kidney"),
    ("not the left kidney but the right one", "right_kidney"),
    # What looks like an exception, a finding, a side or another structure, and is none.
    ("Leber und kleine Milz", "liver spleen"),
    ("Leber, wieder Milz", "liver spleen"),
    ("liver then start kidneys", "liver right_kidney left_kidney"),
    ("Please outline the spleen and state the liver volume", "spleen liver"),
    ("bazo menor y hígado", "spleen liver"),
    ("segment the liver stat", "liver"),
    ("start with the liver", "liver"),
    ("kleine Nieren", "right_kidney left_kidney"),
    ("liver with metal artefacts", "liver"),
    ("Leber und seine Milz", "liver spleen"),
    ("Segment the donor's right kidney.", "right_kidney"),
    ("the man's right kidney, please", "right_kidney"),
    ("this child's right adrenal gland.", "right_adrenal_gland"),
    ("Mr. Smith's right kidney.", "right_kidney"),
    ("Leber, Milz und Pfortader", "liver spleen portal_and_splenic_vein"),
    ("Bitte Milz und Pfortader segmentieren", "spleen portal_and_splenic_vein"),
    ("Kidneys re-segmentation please", "right_kidney left_kidney"),
    ("please have the kidneys re-segmented", "right_kidney left_kidney"),
    ("Nieren re-segmentieren", "right_kidney left_kidney"),
    ("kidneys re-do", "right_kidney left_kidney"),
    ("rein G et D", "right_kidney left_kidney"),
    ("reins d un patient", "right_kidney left_kidney"),
    ("Right, the kidney", "right_kidney"),
    ("Right, only the kidney", "right_kidney"),
    ("kidney, right?", "right_kidney"),
    ("hepatic pancreas spleen", "liver pancreas spleen"),
    ("aortic liver", "aorta liver"),
    ("liver in a thoracic CT", "liver"),
    ("thoracic scan of the liver", "liver"),
    ("abdominal and thoracic CT of the aorta", "aorta"),
    ("liver in ascending order", "liver"),
    ("queue the liver", "liver"),
    ("Segment 2 of the organs: liver and spleen", "liver spleen"),
    ("segment 1 of the kidneys", "right_kidney left_kidney"),
    ("drop the mask on the liver", "liver"),
    ("leave the liver and spleen only", "liver spleen"),
    ("remove holes in liver", "liver"),
    ("splenic/portal vein", "portal_and_splenic_vein"),
]

LEFT_OUT_OF_EVERYTHING = [
    ("alle Organe, auch die kleinen Nebennieren", ""),
    ("all organs, start with the liver", ""),
    ("All organs\nexcept the liver,\nspleen and pancreas", "liver spleen pancreas"),
    ("Segment everything\nexcept the liver and the\nspleen", "liver spleen"),
    ("Alle Organe\naußer Leber,\nMilz", "liver spleen"),
    ("All organs\nexcept the liver\nand the spleen", "liver spleen"),
    ("all organs\nexcept:\n- liver\n- spleen\n- pancreas", "liver spleen pancreas"),
    ("everything w/o the spleen", "spleen"),
    ("everything exept the liver", "liver"),
    ("everything execpt the liver", "liver"),
    ("everything excpet the liver", "liver"),
    ("everything withot the liver", "liver"),
    ("alles auser Leber", "liver"),
    ("todo exepto el hígado", "liver"),
    ("everything, remove the liver", "liver"),
    ("all organs, omitting the liver", "liver"),
    ("all organs, skipping the liver", "liver"),
    ("everything, leave the liver out", "liver"),
    ("all organs exc. liver", "liver"),
    ("all organs excl. liver", "liver"),
    ("alle Organe exkl. Leber", "liver"),
    ("tous les organes à l'exclusion du foie", "liver"),
    ("todos los órganos excluyendo el hígado", "liver"),
    ("everything except the kidneys (both), liver", "right_kidney left_kidney liver"),
    ("everything except\nliver\nspleen", "liver spleen"),
    ("everything, not the liver, and spleen", "liver spleen"),
    ("all but the liver", "liver"),
]

# Findings, parts of organs and other structures for which the whole organ would be the wrong answer.
REFUSED = [
    "alles, die Milz bitte weglassen",
    "liver mets",
    "HCC in the liver",
    "FNH of the liver",
    "métas du foie",
    "Rundherd in der Leber",
    "RCC of the left kidney",
    "pancreas pseudocyst",
    "gallbladder polyp",
    "portal vein thrombosis",
    "liver tumr",
    "liver leison",
    "lesionss in the liver",
    "pancreas carcinom",
    "hepatic and portal veins",
    "Leber- und Pfortader",
    "vena cava sup.",
    "upper vena cava",
    "veine cave sup",
    "liver segment VI",
    "segment 4a of the liver",
    "tête du pancréas",
    "Kopf des Pankreas",
    "arch of the aorta",
    "aorte thoracique",
    "vesícula seminal",
]


def organs(prompt: str) -> list[str]:
    return [target.organ for target in parse_prompt(prompt)]


@pytest.mark.parametrize(("prompt", "expected"), ASKED)
def test_what_is_asked_for(prompt: str, expected: str) -> None:
    assert sorted(organs(prompt)) == sorted(expected.split())


@pytest.mark.parametrize(("prompt", "left_out"), LEFT_OUT_OF_EVERYTHING)
def test_what_is_left_out(prompt: str, left_out: str) -> None:
    everything = {organ.id for organ in organ_table()}
    assert set(organs(prompt)) == everything - set(left_out.split())


@pytest.mark.parametrize("prompt", REFUSED)
def test_what_is_refused(prompt: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(prompt)
    assert caught.value.remedy


def test_lines_of_a_prompt_become_one_line_for_the_text_encoder() -> None:
    (target,) = parse_prompt("please\n  segment\nthe liver")
    assert target.text == "please segment the liver" and "\n" not in target.phrase
