"""The models on a device that only pretends to exist: `python pretended_gpu.py progidiff|textdiffseg`.

Tensors there have shapes and a device but no numbers (PyTorch's fake tensors). What a GPU refuses is refused:
tensors of the processor and of the device in one operation.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import textdiffseg_samples
import tiny_models
import torch
from progidiff.pipelines.coarse_prior import add_coarse_prior
from progidiff.pipelines.doubt import doubted
from progidiff.pipelines.progidiff.text import encode_text as progidiff_text
from progidiff.pipelines.sampling import KnownLatents, descend
from progidiff.pipelines.textdiffseg.text import encode_text as textdiffseg_text
from progidiff.training.drawing import drawing_stage
from progidiff.volumes.volume import Grid
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

SLICES, EDGE = 8, 32


def main(kind: str) -> None:
    _setup_privateuseone_for_python_backend("pretended")
    # Here and below: what keeps its numbers would be computed, and there is no device to do that.
    fake_tensor.CONSTANT_NUMEL_LIMIT = 0
    samples: Any = tiny_models if kind == "progidiff" else textdiffseg_samples
    pipeline = samples.tiny_pipeline()
    stage: Any = drawing_stage(pipeline, [textdiffseg_samples.packed_case()], 0.0)
    source = stage.slices if kind == "progidiff" else stage.volumes
    batch = source.batch(2, np.random.default_rng(0))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            move(part, mode)
    pipeline.scheduler.alphas_cumprod = mode.from_tensor(pipeline.scheduler.alphas_cumprod)
    batch = replace(batch, **{name: mode.from_tensor(tensor) for name, tensor in vars(batch).items()})
    with mode:
        proposes(pipeline)
        steers(pipeline)
        learns(stage, batch, progidiff_text if kind == "progidiff" else textdiffseg_text)
    print("never mixed")


def move(part: nn.Module, mode: FakeTensorMode) -> None:
    """Every weight and buffer to the device."""
    for module in part.modules():
        for name, weight in module.named_parameters(recurse=False):
            there = mode.from_tensor(weight.detach()).to("pretended")
            setattr(module, name, nn.Parameter(there, weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(buffer).to("pretended"))


@torch.no_grad()
def proposes(pipeline: Any) -> None:
    """What `Segmenter.propose` asks for, in its order."""
    coarse = pipeline.find_organs(torch.zeros(8, 16, 16))
    assert coarse.device.type == "cpu"
    features = pipeline.encode_image(torch.zeros(SLICES, EDGE, EDGE), 2.0)
    grid = Grid((EDGE, EDGE, SLICES), np.diag([2.0, 2.0, 5.0, 1.0]))
    seen = np.full((len(coarse), EDGE, EDGE, SLICES), 0.1, np.float32)
    assert add_coarse_prior(features.organs, grid, seen, grid, 0.3).device.type == "pretended"
    text = pipeline.encode_prompt("segment the liver")
    latents = pipeline.noise(features, 5.0, torch.Generator().manual_seed(0))
    first = pipeline.first_sight(features, text, 5.0, 2)
    assert first is not None and first.device.type == "pretended"
    assert pipeline.decode(latents, features, text).device.type == "cpu"


@torch.no_grad()
def steers(pipeline: Any) -> None:
    """A descent that holds on to what is known, under doubt."""
    features = pipeline.encode_image(torch.zeros(SLICES, EDGE, EDGE), 2.0)
    seen = doubted(features, 1.0, (5.0, 2.0, 2.0), 0)
    text = pipeline.encode_prompt("segment the liver")
    start = pipeline.encode_mask(torch.zeros(SLICES, EDGE, EDGE))
    generator = torch.Generator().manual_seed(0)
    latents = descend(
        pipeline.scheduler,
        lambda noisy, timestep: pipeline.predict(noisy, timestep, seen, text),
        start,
        [999, 500, 0],
        noise=lambda: pipeline.noise(seen, 5.0, generator),
        eta=0.9,
        known=KnownLatents(start, start[:, :1] > 0),
        resamplings=2,
    )
    assert latents.device.type == "pretended"
    assert pipeline.decode_mask(latents).device.type == "pretended"


def learns(stage: Any, batch: Any, encode_text: Any) -> None:
    """The losses of a step, and back."""
    text = encode_text(stage.tokenizer, stage.text_encoder, ["segment the liver", "the spleen"])
    losses = stage.losses(batch.to(torch.device("pretended:0")), text)
    assert {loss.device.type for loss in losses.values()} == {"pretended"}
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()


if __name__ == "__main__":
    main(sys.argv[1])
