"""Low-rank weights added to the model's own (LoRA, Hu et al., ICLR 2022).

For drawing, the product of the two low-rank matrices is added to a layer's weight, which costs nothing
at each step. The weight itself is kept and put back, so that without the adapter every bit is as before.
(For training, peft's layers go around the model's own instead: `lora_training`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from progidiff.errors import AdapterError

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline

PARTS = ("controlnet", "image_encoder", "refiner", "locator")
"""The parts of a ProGiDiff model that are adapted; pipelines of other kinds name theirs as `adaptable`."""


def adapted_parts(pipeline: object) -> tuple[str, ...]:
    """Names of the parts that are adapted."""
    return tuple(getattr(pipeline, "adaptable", PARTS))


def add_to(pipeline: ProGiDiffPipeline, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds B·A to the weights of each layer (alpha equals the rank, so the factor is one).

    Returns:
        The weights as they were, for `put_back`.

    Raises:
        AdapterError: a layer is missing or has another shape; nothing has been changed then.
    """
    sums = {name: _sum(pipeline, name, tensors) for name in layer_names(tensors, adapted_parts(pipeline))}
    kept = {}
    for name, weight in sums.items():
        layer = _layer(pipeline, name)
        kept[name] = layer.weight.data
        layer.weight.data = weight
    return kept


def shrunk(tensors: Mapping[str, Tensor], cases: int, prior: float) -> dict[str, Tensor]:
    """The same adapter at cases / (cases + prior) of its strength.

    What was learnt from few patients is partly about these patients. Between the weights before and after a
    fine-tuning lie some that do better on others than either (Wortsman et al., CVPR 2022); the fewer taught,
    the nearer to those before.

    Args:
        tensors: low-rank matrices.
        cases: how many taught.
        prior: what the model as it comes counts for, in cases; 0 leaves the adapter as it is.
    """
    factor = cases / (cases + prior)
    return {name: t * factor if name.endswith("lora_B") else t for name, t in tensors.items()}


def put_back(pipeline: ProGiDiffPipeline, kept: Mapping[str, Tensor]) -> None:
    """Gives the layers their own weights again."""
    for name, weight in kept.items():
        layer = _layer(pipeline, name)
        layer.weight.data = weight.to(layer.weight.device)


def layer_names(tensors: Mapping[str, Tensor], parts: tuple[str, ...] = PARTS) -> list[str]:
    """The adapted layers, "PART.LAYER".

    Raises:
        AdapterError: a tensor is not one of a pair, or belongs to no part that can be adapted.
    """
    names = sorted({name.rpartition(".")[0] for name in tensors})
    wanted = {f"{name}.{matrix}" for name in names for matrix in ("lora_A", "lora_B")}
    strangers = [name for name in names if name.split(".")[0] not in parts]
    if wanted != set(tensors) or strangers:
        raise AdapterError("The adapter's weights are not those of an adapter.", "Import or train it again.")
    return names


def _sum(pipeline: ProGiDiffPipeline, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The layer's weight with the low-rank product added."""
    try:
        weight = _layer(pipeline, name).weight.data
        a, b = (
            tensors[f"{name}.{matrix}"].to(weight.device, torch.float32) for matrix in ("lora_A", "lora_B")
        )
        delta = torch.einsum("or,ri->oi", b.flatten(1), a.flatten(1)).view_as(weight)
    except (AttributeError, IndexError, RuntimeError) as error:
        raise AdapterError(
            f"The adapter does not fit the model: {name} has another shape.",
            "Use the model that it was trained on.",
        ) from error
    return weight + delta.to(weight)


def _layer(pipeline: ProGiDiffPipeline, name: str) -> nn.Conv2d:
    part, _, layer = name.partition(".")
    return getattr(pipeline, part).get_submodule(layer)
