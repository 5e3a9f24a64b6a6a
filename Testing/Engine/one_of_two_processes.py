"""One of two processes that train together on the CPU: `python one_of_two_processes.py FOLDER RANK`.

They meet by a file, not by a port, and otherwise as under `accelerate launch`. The second one's clock always
says that there is time left, as that of a process that started late does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from progidiff.training import safeguards
from progidiff.training.loop import Schedule
from progidiff.training.run import TrainingRun
from progidiff.training.textdiffseg_run import Recipe, TextDiffSegRun
from textdiffseg_samples import packed_case, tokenizer
from tiny_models import tiny_locator
from training_samples import configuration

_SCHEDULE = Schedule(steps=2, batch=2, learning_rate=1e-3, warmup=1, precision="no")
_RECIPE = Recipe("tiny-run", "tiny", depths=(8,), default_steps=2, encoder=_SCHEDULE, schedule=_SCHEDULE)
_SOON = 1e-6  # minutes


def main(folder: Path, rank: str) -> None:
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = (folder / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=int(rank), world_size=2)
    if rank == "1":
        safeguards.time_is_up = lambda minutes, schedule: False
    train_locator(folder / "progidiff")
    train_textdiffseg(folder / "textdiffseg")
    torch.distributed.destroy_process_group()


def train_locator(folder: Path) -> None:
    """As many steps as there is time for, which is none; then two."""
    for given in (configuration(10**6).with_minutes({"locator": _SOON}), configuration(2)):
        TrainingRun(folder, given, device="cpu").train("locator")


def train_textdiffseg(folder: Path) -> None:
    """Two steps of each stage, a third one of the joint stage, no further for want of time, and the model."""
    if os.environ["RANK"] == "0":
        tokenizer().save_pretrained(folder / "tokenizer")
    torch.distributed.barrier()
    for steps, minutes in ((2, 60.0), (3, 60.0), (10**6, _SOON)):
        joint = replace(_SCHEDULE, steps=steps, max_minutes=minutes)
        run = TextDiffSegRun(
            folder, [packed_case()], tiny_locator(), replace(_RECIPE, schedule=joint), device="cpu"
        )
        run.train()
    weights = torch.cat([p.detach().flatten() for p in run.stage.parameters()])
    others = [torch.empty_like(weights) for _ in range(2)]
    torch.distributed.all_gather(others, weights)
    assert torch.equal(*others), "the processes trained apart"
    run.save()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
