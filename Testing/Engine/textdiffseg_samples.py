"""A tiny untrained TextDiffSeg model, and packed cases for it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from progidiff.pipelines.textdiffseg.build import TINY, Without, build_pipeline
from progidiff.pipelines.textdiffseg.pipeline import TextDiffSegPipeline
from progidiff.training.case_store import PackedCase
from progidiff.training.wording import train_bert_tokenizer
from tiny_models import tiny_locator
from torch import nn
from transformers import BertTokenizer

PROMPTS = ("segment the liver", "liver tumor", "the spleen", "left kidney", "pancreas please")
FINDINGS = ("liver_tumor",)


@lru_cache(maxsize=1)
def tokenizer() -> BertTokenizer:
    return train_bert_tokenizer(200, PROMPTS)


def tiny_pipeline(without: Without | None = None, seed: int = 0) -> TextDiffSegPipeline:
    """Random weights, in evaluation mode; MONAI's zero-initialised layers are filled too."""
    torch.manual_seed(seed)
    pipeline = build_pipeline(
        TINY, tokenizer(), tiny_locator(), without=without, default_steps=2, findings=FINDINGS
    )
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
            for parameter in part.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.05)
    return pipeline


def packed_case(domain: str = "CT", seed: int = 0, thickness: float = 5.0) -> PackedCase:
    """A bright ball of liver and a smaller one of spleen, (24, 48, 48) voxels."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[:24, :48, :48]
    label = np.zeros((24, 48, 48), np.uint8)
    label[((k - 12) / 7) ** 2 + ((j - 24) / 14) ** 2 + ((i - 18) / 13) ** 2 < 1] = 6
    label[((k - 12) / 4) ** 2 + ((j - 24) / 6) ** 2 + ((i - 40) / 6) ** 2 < 1] = 1
    image = 60 + 10 * rng.standard_normal(label.shape) + 100 * (label == 6) + 60 * (label == 1)
    return PackedCase(
        f"{domain}_{seed}", image.astype(np.uint8), label, (thickness, 3.0, 3.0), (1, 6), domain
    )
