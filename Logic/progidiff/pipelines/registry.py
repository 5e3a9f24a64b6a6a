"""The kinds of model there are. Only the one that is loaded is imported."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from progidiff.errors import ModelError

_PIPELINES = {
    "ProGiDiffPipeline": "progidiff.pipelines.progidiff.pipeline",
    "TextDiffSegPipeline": "progidiff.pipelines.textdiffseg.pipeline",
}


class Features(Protocol):
    """What a model has seen in a stack of slices.

    Attributes:
        organs: (S, 1 + organs, H, W) logits of all organs.
    """

    @property
    def organs(self) -> Tensor: ...


class SegmentationPipeline(Protocol):
    """What segmenting and steering ask of a model, whatever its kind.

    Stacks of slices are (S, H, W) in canonical orientation, their latents (S, C, h, w).

    Attributes:
        slices_per_batch: how many slices are computed at once; bounds the memory.
        config: with `default_steps`, `eta`, `coarse_weight`, and `findings` if it knows any.
        scheduler: the noise schedule.
        locator: its `config.spacing` is what `find_organs` wants.
        image_encoder: its `config.crop` is the edge of the window in pixels.
    """

    slices_per_batch: int
    config: Any
    scheduler: Any
    locator: Any
    image_encoder: Any

    def to(self, device: str | torch.dtype) -> Any: ...

    def find_organs(self, image: Tensor) -> Tensor: ...

    def encode_image(self, image: Tensor, pixel_mm: float) -> Any: ...

    def encode_prompt(self, prompt: str) -> Any: ...

    def first_sight(self, features: Any, text: Any, slice_mm: float, steps: int) -> Tensor | None: ...

    def denoise(
        self,
        features: Any,
        text: Any,
        slice_mm: float,
        seed: int,
        steps: int,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None = None,
        first: Tensor | None = None,
    ) -> Tensor: ...

    def decode(self, latents: Tensor, features: Any, text: Any) -> Tensor: ...

    def noise(self, features: Any, slice_mm: float, generator: Generator) -> Tensor: ...

    def predict(self, latents: Tensor, timestep: Tensor, features: Any, text: Any) -> Tensor: ...

    def encode_mask(self, mask: Tensor) -> Tensor: ...

    def decode_mask(self, latents: Tensor) -> Tensor: ...


def load_pipeline(folder: Path) -> Any:
    """The pipeline of a checked model folder, of the class that its `model_index.json` names.

    Raises:
        ModelError: damaged, or of an unknown kind.
    """
    try:
        kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
        if kind not in _PIPELINES:
            raise ModelError(
                f"The model in {folder} is of an unknown kind ({kind}).",
                f"Known are: {', '.join(_PIPELINES)}.",
            )
        pipeline = getattr(importlib.import_module(_PIPELINES[kind]), kind)
        loaded = pipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        _require_all_weights(loaded, folder)
        # transformers keeps the precision that weights are stored in; autocast chooses the faster one.
        return loaded.to(torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = (str(error) or repr(error)).strip().splitlines()[0]
        raise ModelError(
            f"The model in {folder} cannot be loaded ({reason}).",
            "Install the model again.",
        ) from error


def _require_all_weights(pipeline: Any, folder: Path) -> None:
    """Raises ModelError for weights that the files lack; diffusers leaves these empty without a word."""
    for part, module in pipeline.components.items():
        named = module.named_parameters() if isinstance(module, nn.Module) else ()
        lacking = [name for name, parameter in named if parameter.is_meta]
        if lacking:
            raise ModelError(
                f"The model in {folder} lacks weights of its {part} ({lacking[0]} for one).",
                "Install it again; a model of an earlier version must be trained again.",
            )
