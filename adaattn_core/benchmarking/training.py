"""How fast a training goes on this machine, and what holds it up: the computation, or the reading of pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ..models.encoder import ReflectConv2d, VGGEncoder
from ..training.config import TrainConfig
from ..training.dataloader import batches
from ..training.dataset import Batch
from ..training.trainer import Trainer

ENDLESS = 1_000_000
"""Steps of the run that is measured: no worker must run out of items."""
READ_BATCHES = 8
"""Batches that reading alone is measured on."""
WAITS = 0.1
"""Share of the time that a run may wait for pictures before they count as what holds it up."""


class Rates(NamedTuple):
    """What was measured with a number of workers.

    read: pairs per second of reading alone. steps, pictures: per second of training. waiting: share of the training's
    time in which it waited for pictures.
    """

    workers: int
    read: float
    steps: float
    pictures: float
    waiting: float

    @property
    def compute_seconds(self) -> float:
        """Of a step, waiting left out."""
        return (1 - self.waiting) / self.steps


def warmed_up_trainer(config: TrainConfig) -> Trainer:
    """A run of the style stage that writes nothing, its slow first two steps done."""
    run = Trainer(replace(config, steps=ENDLESS, distill_steps=0, reconstruct_steps=0))
    if config.compile:
        run.compile()
    for batch in islice(batches(run.pairs, 0, workers=0), 2):
        run.train_step(batch)
    return run


def rates(run: Trainer, workers: int, steps: int) -> Rates:
    """Rates with so many workers, over `steps` steps."""
    batch = run.config.batch
    loaded = batches(run.pairs, run.step, workers)
    for _ in range(workers + 1):  # what was read while the workers started does not count
        next(loaded)
    read, _ = _timed(islice(loaded, READ_BATCHES), lambda _: None)

    loaded = batches(run.pairs, run.step, workers)
    run.train_step(next(loaded))
    seconds, waited = _timed(islice(loaded, steps), run.train_step)
    pictures = steps * painted(run.config)
    return Rates(workers, READ_BATCHES * batch / read, steps / seconds, pictures / seconds, waited / seconds)


def _timed(loaded: Iterator[Batch], use: Callable[[Batch], object]) -> tuple[float, float]:
    """Seconds that it took to use all batches, and those of them that went into waiting for the next."""
    waited, started = 0.0, time.perf_counter()
    asked = started
    for batch in loaded:
        waited += time.perf_counter() - asked
        use(batch)
        asked = time.perf_counter()
    return time.perf_counter() - started, waited


def painted(config: TrainConfig) -> int:
    """Pictures that a step of the style stage paints."""
    others = config.batch - config.self_items
    frames = 2 if config.paints_frames else 1
    return config.self_items + others * min(config.styles_per_content, max(1, others)) * frames


def describe_bottleneck(found: Sequence[Rates], batch: int, device: str) -> str:
    """What holds the fastest of these up, in a sentence or two."""
    best = max(found, key=lambda row: row.steps)
    wanted = batch / best.compute_seconds
    if best.waiting > WAITS:
        each = best.read / max(1, best.workers)
        return (
            f"Bottleneck: reading pictures. With --workers {best.workers} a step waits for {best.waiting:.0%} of its "
            f"time. {math.ceil(wanted / each)} workers on cores of their own would keep up; so would smaller files."
        )
    fewest = min(row.workers for row in found if row.waiting <= WAITS)
    return (
        f"Bottleneck: the computation ({device}): {best.compute_seconds:.3g} s a step, while pictures come "
        f"{best.read / wanted:.1f} times as fast as they are used. --workers {fewest} keeps up."
    )


def write_random_vgg(path: Path) -> None:
    """A VGG-19 file with random weights, which takes as long as the true one and teaches nothing."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with torch.device("meta"):
        layers = VGGEncoder().layers
    for name, conv in layers.items():
        assert isinstance(conv, ReflectConv2d) and conv.bias is not None
        fan_in = conv.weight[0].numel()
        tensors[f"{name}.weight"] = torch.randn(conv.weight.shape, generator=generator) * math.sqrt(2 / fan_in)
        tensors[f"{name}.bias"] = torch.zeros(conv.bias.shape)
    save_file(tensors, str(path))


def write_pictures(folder: Path, count: int = 16, size: tuple[int, int] = (640, 480)) -> None:
    """JPEGs of about a photograph's size and smoothness."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
