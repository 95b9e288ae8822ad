"""A training run of seconds. As a program: one process of such a run, for the settings and troubles it is told.

    python tiny_training.py SETTINGS.json [--resume] [--trouble KIND]

The trouble comes over the second process before its fourth step is done: see TROUBLES.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import adaattn_core.training.trainer
from adaattn_core.cli import main
from adaattn_core.models.encoder import ReflectConv2d, VGGEncoder
from adaattn_core.training.dataset import DataError
from adaattn_core.training.trainer import Trainer

TROUBLED_STEP = 3


def small_vgg(source: str | Path) -> VGGEncoder:
    """Stands in for `load_vgg`: no smaller than the student, weights that keep the size of the signal."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        vgg = VGGEncoder((8, 8, 16, 32, 32), (2, 2, 2, 2, 1))
        for conv in vgg.layers.values():
            assert isinstance(conv, ReflectConv2d) and conv.bias is not None
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            torch.nn.init.zeros_(conv.bias)
    return vgg


def write_pictures(folder: Path) -> None:
    """content/ and style/, two pictures each."""
    for number, part in enumerate(("content", "style")):
        (folder / part).mkdir()
        for index in range(2):
            coarse = np.random.default_rng(2 * number + index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 48)).save(folder / part / f"{index}.png")


def tiny_settings(pictures: Path, output: Path) -> dict[str, Any]:
    """Of a run of 2 + 2 + 2 steps."""
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
    original = Trainer._losses

    def losses(run: Trainer, *images: Tensor, own: int) -> dict[str, Tensor]:
        found = original(run, *images, own=own)
        if run.ranks.rank != 1 or run.step != TROUBLED_STEP:
            return found
        factor = TROUBLES[kind]()
        return found if factor is None else {name: factor * loss for name, loss in found.items()}

    setattr(Trainer, "_losses", losses)  # noqa: B010  # an assignment would need two of mypy's exceptions


if __name__ == "__main__":
    file, *words = sys.argv[1:]
    vars(adaattn_core.training.trainer).update(load_vgg=small_vgg, FIT_CROPS=4)
    if "--trouble" in words:
        bring_trouble(words.pop())
        words.remove("--trouble")
    settings = json.loads(Path(file).read_text())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    sys.exit(main(["train", *flags, *words]))
