"""Model folders that are incomplete, damaged or dangerous are refused before anything is loaded from them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from progidiff.errors import DeviceError, ModelError
from progidiff.pipelines.model_folder import check_model_folder
from progidiff.segmenter import Segmenter
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tiny_stable_diffusion


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model(), tmp_path / "model"))


def refused(folder: Path, words: str = ".") -> ModelError:
    with pytest.raises(ModelError, match=words) as caught:
        Segmenter.load(str(folder), "cpu")
    assert caught.value.remedy and "\n" not in str(caught.value)
    return caught.value


def change_index(folder: Path, **entries: object) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text(encoding="utf-8")), **entries}))


def test_a_good_one_loads(model: Path) -> None:
    segmenter = Segmenter.load(str(model), "cpu")
    assert segmenter.model_id == "model" and len(segmenter.model_hash) == 64
    assert segmenter.default_steps == 2 and segmenter.device == "cpu"


def test_the_hash_follows_the_weights(model: Path) -> None:
    before = Segmenter.load(str(model), "cpu").model_hash
    file = model / "refiner" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert Segmenter.load(str(model), "cpu").model_hash != before


@pytest.mark.parametrize("part", ["unet", "vae", "tokenizer", "scheduler", "locator"])
def test_missing_part(model: Path, part: str) -> None:
    shutil.rmtree(model / part)
    assert part in refused(model, "incomplete").message


@pytest.mark.parametrize("part", ["unet", "text_encoder", "image_encoder"])
def test_missing_weights(model: Path, part: str) -> None:
    for file in (model / part).glob("*.safetensors"):
        file.unlink()
    assert part in refused(model, "no weights").message


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_truncated_weights(model: Path, kept: int) -> None:
    file = model / "controlnet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(model, "controlnet.*damaged")


@pytest.mark.parametrize(
    "content",
    [
        (10**15).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]" + b"0" * 99,
        (8).to_bytes(8, "little") + b'{"a": 1}' + b"0" * 99,
        (7).to_bytes(8, "little") + b"\xff\xfe\xfd{}!!" + b"0" * 99,
    ],
)
def test_headers_that_lie(model: Path, content: bytes) -> None:
    (model / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    refused(model, "damaged")


@pytest.mark.parametrize("name", ["unet/extra.bin", "weights.ckpt", "vae/deep/er/model.pt", "a.pkl"])
def test_pickles_are_refused_and_never_opened(model: Path, tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    import pickle

    path = model / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))
    refused(model, "pickled")
    assert not (tmp_path / "exploded").exists()


def test_pickle_instead_of_weights(model: Path) -> None:
    folder = model / "unet"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    refused(model, "pickled")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"unet": []}', '{"unet": ["diffusers"]}', "{}"]
)
def test_broken_index(model: Path, text: str) -> None:
    (model / "model_index.json").write_text(text)
    refused(model)


def test_foreign_code_is_not_imported(model: Path) -> None:
    change_index(model, vae=["antigravity", "Model"])
    refused(model, "antigravity")


def test_code_in_the_folder_is_not_run(model: Path, tmp_path: Path) -> None:
    (model / "vae" / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
    change_index(model, vae=["evil", "Model"])
    refused(model)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("text", ["", "{", '{"channels": "many"}', '{"channels": [8, 8]}'])
def test_broken_configuration_of_a_part(model: Path, text: str) -> None:
    (model / "image_encoder" / "config.json").write_text(text)
    refused(model)


@pytest.mark.parametrize("part", ["unet", "image_encoder", "refiner", "locator"])
def test_a_tensor_that_is_not_in_the_file(model: Path, part: str) -> None:
    (path,) = (model / part).glob("*.safetensors")
    tensors = load_file(path)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks weights of its {part} \\({lost}"):
        Segmenter.load(str(model), "cpu")


def test_weights_of_another_size(model: Path) -> None:
    config = model / "unet" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text(encoding="utf-8")), "block_out_channels": [24, 24, 24]})
    )
    refused(model)


def test_broken_tokenizer(model: Path) -> None:
    for file in (model / "tokenizer").iterdir():
        file.write_text("{")
    refused(model)


def test_stable_diffusion_itself_is_no_model_of_ours() -> None:
    refused(tiny_stable_diffusion())


def test_no_folder_and_no_name() -> None:
    refused(Path("/nowhere/at/all"), "no model")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("hello")
    refused(tmp_path / "model")


def test_check_alone_needs_an_index(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index\.json"):
        check_model_folder(tmp_path)


def test_half_precision_on_disk_is_single_precision_in_memory(model: Path) -> None:
    segmenter = Segmenter.load(str(model), "cpu")
    segmenter.pipeline.to(torch.float16).save_pretrained(model)
    again = Segmenter.load(str(model), "cpu").pipeline
    for name, part in again.components.items():
        if isinstance(part, torch.nn.Module):
            assert {p.dtype for p in part.parameters()} == {torch.float32}, name


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "", "mps:"])
def test_devices_that_do_not_exist(device: str) -> None:
    with pytest.raises(DeviceError):
        Segmenter.load(str(tiny_model()), device)
