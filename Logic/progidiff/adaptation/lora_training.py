"""Trainable low-rank layers around the model's own, by peft."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from progidiff.adaptation.lora import adapted_parts

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline

_NAME = "adapter"  # peft's name of it inside the layers
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FIRST_LAYERS = ("stem", "down")


def target_layers(part: str, network: nn.Module, encoder: str = "all") -> list[str]:
    """Names of the layers of a part that are adapted: every convolution and attention projection.

    Args:
        part: one of `adapted_parts`.
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
        for part in adapted_parts(pipeline):
            network = getattr(pipeline, part).requires_grad_(False)
            targets[part] = target_layers(part, network, encoder)
            config = LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets[part]
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                inject_adapter_in_model(config, network, adapter_name=_NAME)
            _dilate(network)
        yield targets
    finally:
        for part in adapted_parts(pipeline):
            _unwrap(getattr(pipeline, part))


def _dilate(network: nn.Module) -> None:
    """Gives dilated convolutions dilated low-rank ones; peft 0.21 leaves that out, and the sizes differ."""
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer) and isinstance(layer.get_base_layer(), nn.Conv2d | nn.Conv3d):
            layer.lora_A[_NAME].dilation = layer.get_base_layer().dilation


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
    for part in adapted_parts(pipeline):
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, BaseTunerLayer):
                for matrix in ("lora_A", "lora_B"):
                    weight = getattr(layer, matrix)[_NAME].weight
                    tensors[f"{part}.{name}.{matrix}"] = weight.detach().float().cpu().clone()
    return tensors


def load_state(pipeline: ProGiDiffPipeline, tensors: Mapping[str, Tensor]) -> None:
    """Sets the attached low-rank matrices, as `state` gave them."""
    for part in adapted_parts(pipeline):
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, BaseTunerLayer):
                for matrix in ("lora_A", "lora_B"):
                    getattr(layer, matrix)[_NAME].weight.data.copy_(tensors[f"{part}.{name}.{matrix}"])
