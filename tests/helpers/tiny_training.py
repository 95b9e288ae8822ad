"""A training run that takes seconds. As a program: one process of such a run.

    python tiny_training.py SETTINGS.json [--resume] [--trouble KIND]

With --trouble the second process fails in its fourth step: see TROUBLES.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import adaattn_core.training.initialization
import adaattn_core.training.run_log
import adaattn_core.training.trainer
from adaattn_core.cli import main
from adaattn_core.errors import DataError
from adaattn_core.models.encoder import ReflectConv2d, VGGEncoder
from adaattn_core.runtime.distributed import DistributedContext
from adaattn_core.training import objective
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import Batch
from adaattn_core.training.objective import Networks

TROUBLED_STEP = 3


def small_vgg(source: str | Path) -> VGGEncoder:
    """Replaces `load_vgg`: at least as large as the student, with weights that preserve the size of the signal."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        vgg = VGGEncoder((8, 8, 16, 32, 32), (2, 2, 2, 2, 1))
        for conv in vgg.layers.values():
            assert isinstance(conv, ReflectConv2d) and conv.bias is not None
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            torch.nn.init.zeros_(conv.bias)
    return vgg


def skip_plot(points: Sequence[tuple[int, str, float]], path: Path) -> None:
    """Replaces `plot_losses`, which takes longer than a tiny run."""
    path.write_text("<svg/>")


def use_small_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train with a narrow VGG-19 and few calibration crops, without drawing the loss curve."""
    monkeypatch.setattr(adaattn_core.training.initialization, "load_vgg", small_vgg)
    monkeypatch.setattr(adaattn_core.training.initialization, "FIT_CROPS", 4)
    monkeypatch.setattr(adaattn_core.training.run_log, "plot_losses", skip_plot)


def write_pictures(folder: Path) -> None:
    """Write content/ and style/ with two pictures each."""
    for number, part in enumerate(("content", "style")):
        (folder / part).mkdir()
        for index in range(2):
            coarse = np.random.default_rng(2 * number + index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 48)).save(folder / part / f"{index}.png")


def tiny_settings(pictures: Path, output: Path) -> dict[str, Any]:
    """The settings of a run of 2 + 2 + 2 steps."""
    return {
        "content": str(pictures / "content"), "style": str(pictures / "style"), "vgg": "small", "output": str(output),
        "steps": 2, "distill_steps": 2, "reconstruct_steps": 2, "batch": 2, "crop": 32, "width": 0.125,
        "warmup_steps": 2, "self_pairs": 0.5, "local_samples": 50, "device": "cpu", "precision": "float32",
        "workers": 0, "checkpoint_every": 100, "sample_every": 100,
    }  # fmt: skip


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def vanish() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise DataError("no picture is left. Find some.")


def poison() -> Tensor:
    return torch.tensor(math.nan)


TROUBLES: dict[str, Callable[[], Tensor | None]] = {"stop": stop, "vanish": vanish, "fail": fail, "poison": poison}


def bring_trouble(kind: str) -> None:
    """Let the second process fail in step TROUBLED_STEP."""
    original, rank = objective.batch_losses, DistributedContext.from_env().rank

    def batch_losses(config: TrainConfig, step: int, networks: Networks, batch: Batch) -> dict[str, Tensor]:
        losses = original(config, step, networks, batch)
        if rank != 1 or step != TROUBLED_STEP:
            return losses
        factor = TROUBLES[kind]()
        return losses if factor is None else {name: factor * loss for name, loss in losses.items()}

    vars(adaattn_core.training.trainer).update(batch_losses=batch_losses)


if __name__ == "__main__":
    file, *words = sys.argv[1:]
    vars(adaattn_core.training.initialization).update(load_vgg=small_vgg, FIT_CROPS=4)
    vars(adaattn_core.training.run_log).update(plot_losses=skip_plot)
    if "--trouble" in words:
        bring_trouble(words.pop())
        words.remove("--trouble")
    settings = json.loads(Path(file).read_text())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    sys.exit(main(["train", *flags, *words]))
