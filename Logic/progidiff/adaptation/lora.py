"""Low-rank weights in the model and out of it (LoRA, Hu et al., ICLR 2022).

Two ways in, for two purposes. For training, peft puts its layers around the model's own (`attached`).
For drawing, the product of the low-rank matrices is added to the weights (`add_to`), which costs nothing
at each step; the weights themselves are kept and put back (`put_back`), so that without an adapter every
bit is as before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from progidiff.errors import AdapterError

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline

PARTS = ("controlnet", "image_encoder", "refiner", "locator")
_NAME = "adapter"  # peft's name of it inside the layers
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FIRST_LAYERS = ("stem", "down")


def target_layers(part: str, network: nn.Module, encoder: str = "all") -> list[str]:
    """Names of the layers of a part that are adapted: every convolution and attention projection.

    Args:
        part: one of `PARTS`.
        network: that part of the pipeline.
        encoder: "all" convolutions of the image encoder, or only the "first" ones, which see the scan.
    """
    names = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Conv3d)
        or (isinstance(layer, nn.Linear) and name.endswith(_ATTENTION))
    ]
    if part == "image_encoder" and encoder == "first":
        names = [name for name in names if name.split(".")[0] in _FIRST_LAYERS]
    return names


@contextlib.contextmanager
def attached(
    pipeline: ProGiDiffPipeline, rank: int, encoder: str = "all", seed: int = 0
) -> Iterator[dict[str, list[str]]]:
    """Puts trainable LoRA layers around the adapted layers, and takes them off again.

    Inside, these layers' parameters are the only ones of the pipeline that require gradients. A starts
    Gaussian and B at zero, so that the model starts unchanged; alpha equals the rank.

    Yields:
        The adapted layers by part.
    """
    targets = {}
    try:
        for part in PARTS:
            network = getattr(pipeline, part).requires_grad_(False)
            targets[part] = target_layers(part, network, encoder)
            config = LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets[part]
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                inject_adapter_in_model(config, network, adapter_name=_NAME)
        yield targets
    finally:
        for part in PARTS:
            _unwrap(getattr(pipeline, part))


def _unwrap(network: nn.Module) -> None:
    """Puts the model's own layers back where peft's are; their weights were never touched."""
    wrapped = [(name, m) for name, m in network.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in wrapped:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config
    network.requires_grad_(False).eval()


def state(pipeline: ProGiDiffPipeline) -> dict[str, Tensor]:
    """Copies of the attached low-rank matrices: "PART.LAYER.lora_A" and "…lora_B", float32 on the CPU."""
    tensors = {}
    for part in PARTS:
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, BaseTunerLayer):
                for matrix in ("lora_A", "lora_B"):
                    weight = getattr(layer, matrix)[_NAME].weight
                    tensors[f"{part}.{name}.{matrix}"] = weight.detach().float().cpu().clone()
    return tensors


def load_state(pipeline: ProGiDiffPipeline, tensors: Mapping[str, Tensor]) -> None:
    """Sets the attached low-rank matrices, as `state` gave them."""
    for part in PARTS:
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, BaseTunerLayer):
                for matrix in ("lora_A", "lora_B"):
                    getattr(layer, matrix)[_NAME].weight.data.copy_(tensors[f"{part}.{name}.{matrix}"])


def add_to(pipeline: ProGiDiffPipeline, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds B·A to the weights of each layer (alpha equals the rank, so the factor is one).

    Returns:
        The weights as they were, for `put_back`.

    Raises:
        AdapterError: a layer is missing or has another shape; nothing has been changed then.
    """
    sums = {name: _sum(pipeline, name, tensors) for name in layer_names(tensors)}
    kept = {}
    for name, weight in sums.items():
        layer = _layer(pipeline, name)
        kept[name] = layer.weight.data
        layer.weight.data = weight
    return kept


def put_back(pipeline: ProGiDiffPipeline, kept: Mapping[str, Tensor]) -> None:
    """Gives the layers their own weights again."""
    for name, weight in kept.items():
        layer = _layer(pipeline, name)
        layer.weight.data = weight.to(layer.weight.device)


def layer_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """The adapted layers, "PART.LAYER".

    Raises:
        AdapterError: a tensor is not one of a pair, or belongs to no part that can be adapted.
    """
    names = sorted({name.rpartition(".")[0] for name in tensors})
    wanted = {f"{name}.{matrix}" for name in names for matrix in ("lora_A", "lora_B")}
    strangers = [name for name in names if name.split(".")[0] not in PARTS]
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
    except (AttributeError, RuntimeError) as error:
        raise AdapterError(
            f"The adapter does not fit the model: {name} has another shape.",
            "Use the model that it was trained on.",
        ) from error
    return weight + delta.to(weight)


def _layer(pipeline: ProGiDiffPipeline, name: str) -> nn.Conv2d:
    part, _, layer = name.partition(".")
    return getattr(pipeline, part).get_submodule(layer)
