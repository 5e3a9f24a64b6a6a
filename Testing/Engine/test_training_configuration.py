"""Training configurations: those that ship are valid, and mistakes in others are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from progidiff.errors import UsageError
from progidiff.resources import resources_folder
from progidiff.training.configuration import STAGES, Configuration, load_configuration, read_configuration

SHIPPED = sorted(p.stem for p in (resources_folder() / "Training").glob("*.json"))


def plain(**changes: Any) -> dict[str, Any]:
    return {**read_configuration("smoke-test").to_json(), **changes}


def test_what_ships() -> None:
    assert {"embedded", "smoke-test", "stable-diffusion-1.5"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_valid_and_survives_a_round_trip(name: str) -> None:
    given = read_configuration(name)
    assert Configuration.from_json(json.loads(json.dumps(given.to_json()))) == given
    assert set(given.stages) <= set(STAGES) and given.licence and given.notes


def test_the_embedded_configuration_is_the_networks_own_default() -> None:
    embedded = read_configuration("embedded")
    default = Configuration("x")
    assert (embedded.generator, embedded.encoder) == (default.generator, default.encoder)
    assert embedded.locator == default.locator and not embedded.base


def test_a_base_brings_its_generator() -> None:
    base = read_configuration("stable-diffusion-1.5")
    assert base.base and base.prediction == "epsilon" and not base.own_generator
    assert "autoencoder" not in base.stages and base.crop == 512


def test_no_time_limit_is_null_in_the_file() -> None:
    stages = plain()["stages"]
    assert stages["control"]["max_minutes"] is None and "minutes_done" not in stages["control"]


WRONG = [
    ({"colour": 3}, "colour"),
    ({"crop": 64}, "crop"),
    ({"generator": {"crop": 50}}, "multiple of 32"),
    ({"generator": {"unet_channels": "wide"}}, "unet_channels"),
    ({"generator": {"unet_channels": [1.5]}}, "unet_channels"),
    ({"generator": 7}, "object"),
    ({"phantoms": {"count": True}}, "count"),
    ({"phantoms": {"count": "many"}}, "count"),
    ({"appearance": "strong"}, "appearance"),
    ({"notes": "one"}, "notes"),
    ({"name": "../escape"}, "folder"),
    ({"name": ""}, "folder"),
    ({"name": ".."}, "folder"),
    ({"name": "control"}, "another use"),
    ({"name": "packed"}, "another use"),
    ({"locator": {"patch": [8, 8]}}, "three positive"),
    ({"phantoms": {"shape": [48, 48]}}, "three positive"),
    ({"phantoms": {"spacing": [1.0, 1.0, 0.0]}}, "three positive"),
    ({"encoder": {"slices": 4}}, "odd"),
    ({"encoder": {"channels": [8, 8]}}, "scales"),
    ({"prediction": "noise"}, "prediction"),
    ({"prediction": "epsilon"}, "v_prediction or sample"),
    ({"mask_losses": 1}, "mask_losses"),
    ({"doubt": -0.5}, "doubt"),
    ({"train_encoder": 0}, "train_encoder"),
    ({"base": "somewhere"}, "autoencoder"),
    ({"stages": {}}, "autoencoder"),
    ({"stages": {"cooking": {"steps": 1, "batch": 1, "learning_rate": 1}}}, "cooking"),
    ({"stages": {"control": {"steps": 1}}}, "incomplete"),
    ({"stages": {"control": {"steps": 0, "batch": 1, "learning_rate": 0.1}}}, "positive"),
    (
        {"stages": {"control": {"steps": 1, "batch": 1, "learning_rate": 0.1, "precision": "fp8"}}},
        "precision",
    ),
    (
        {"stages": {"control": {"steps": 1, "batch": 1, "learning_rate": 0.1, "minutes_done": 1}}},
        "minutes_done",
    ),
    ({"stages": []}, "object"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Configuration.from_json(plain(**changes))
    assert caught.value.remedy and caught.value.exit_code == 2


def test_an_encoder_learns_somewhere() -> None:
    alone = {n: s for n, s in plain()["stages"].items() if n != "encoder"}
    assert Configuration.from_json(plain(stages=alone)).train_encoder
    with pytest.raises(UsageError, match="set train_encoder"):
        Configuration.from_json(plain(stages=alone, train_encoder=False))
    assert "encoder" in plain()["stages"], "or this would test nothing"


def test_frozen_v_prediction_needs_a_stage_that_teaches_it() -> None:
    stages = {n: s for n, s in plain()["stages"].items() if n != "autoencoder"}
    tuned = Configuration.from_json(plain(base="somewhere", stages=stages))
    assert tuned.own_generator
    with pytest.raises(UsageError, match="fine-tuned"):
        Configuration.from_json(plain(base="somewhere", stages=stages, prediction="epsilon"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UsageError, match=r"mine\.json"):
        load_configuration(tmp_path / "mine.json")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="embedded"):
        read_configuration("nonsense")
