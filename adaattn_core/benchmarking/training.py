"""The speed of training on this machine and its bottleneck: the computation or the loading of pictures."""

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

UNLIMITED_STEPS = 1_000_000
"""Steps of the measured run: more than any worker process loads items for."""
LOADED_BATCHES = 8
"""Batches over which loading alone is measured."""
MAX_WAITING = 0.1
"""Share of the time that training may wait for pictures before loading counts as the bottleneck."""


class Rates(NamedTuple):
    """Measurements with one number of worker processes.

    read: pairs per second of loading alone. steps, pictures: per second of training. waiting: share of the training
    time spent waiting for pictures.
    """

    workers: int
    read: float
    steps: float
    pictures: float
    waiting: float

    @property
    def compute_seconds(self) -> float:
        """Seconds of a step without waiting."""
        return (1 - self.waiting) / self.steps


def warmed_up_trainer(config: TrainConfig) -> Trainer:
    """A trainer of the style stage that writes nothing, after the two first steps, which are slow."""
    trainer = Trainer(replace(config, steps=UNLIMITED_STEPS, distill_steps=0, reconstruct_steps=0))
    if config.compile:
        trainer.compile()
    for batch in islice(batches(trainer.pairs, 0, workers=0), 2):
        trainer.train_step(batch)
    return trainer


def measure_rates(trainer: Trainer, workers: int, steps: int) -> Rates:
    """Rates with this number of worker processes, over `steps` steps."""
    batch = trainer.config.batch
    loaded = batches(trainer.pairs, trainer.step, workers)
    for _ in range(workers + 1):  # batches that were loaded while the workers started do not count
        next(loaded)
    read, _ = _time(islice(loaded, LOADED_BATCHES), lambda _: None)

    loaded = batches(trainer.pairs, trainer.step, workers)
    trainer.train_step(next(loaded))
    seconds, waited = _time(islice(loaded, steps), trainer.train_step)
    pictures = steps * pictures_per_step(trainer.config)
    return Rates(workers, LOADED_BATCHES * batch / read, steps / seconds, pictures / seconds, waited / seconds)


def _time(loaded: Iterator[Batch], process: Callable[[Batch], object]) -> tuple[float, float]:
    """Seconds for all batches, and how many of them were spent waiting for the next batch."""
    waited, started = 0.0, time.perf_counter()
    requested = started
    for batch in loaded:
        waited += time.perf_counter() - requested
        process(batch)
        requested = time.perf_counter()
    return time.perf_counter() - started, waited


def pictures_per_step(config: TrainConfig) -> int:
    """Pictures that a step of the style stage stylises."""
    others = config.batch - config.n_self_pairs
    frames = 2 if config.uses_frame_pairs else 1
    return config.n_self_pairs + others * min(config.styles_per_content, max(1, others)) * frames


def describe_bottleneck(rates: Sequence[Rates], batch: int, device: str) -> str:
    """The bottleneck of the fastest number of workers, in a sentence or two."""
    best = max(rates, key=lambda row: row.steps)
    demand = batch / best.compute_seconds
    if best.waiting > MAX_WAITING:
        per_worker = best.read / max(1, best.workers)
        return (
            f"Bottleneck: loading pictures. With --workers {best.workers} a step waits for {best.waiting:.0%} of its "
            f"time. {math.ceil(demand / per_worker)} workers on separate cores would be fast enough; so would smaller "
            "files."
        )
    fewest = min(row.workers for row in rates if row.waiting <= MAX_WAITING)
    return (
        f"Bottleneck: the computation ({device}): {best.compute_seconds:.3g} s per step, while pictures are loaded "
        f"{best.read / demand:.1f} times as fast as they are used. --workers {fewest} is enough."
    )


def write_random_vgg(path: Path) -> None:
    """A VGG-19 file with random weights, which is as fast as the real one and useless for training."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with torch.device("meta"):
        layers = VGGEncoder().layers
    for name, conv in layers.items():
        assert isinstance(conv, ReflectConv2d) and conv.bias is not None
        fan_in = conv.weight[0].numel()
        tensors[f"{name}.weight"] = torch.randn(
            conv.weight.shape, generator=generator, dtype=torch.float32
        ) * math.sqrt(2 / fan_in)
        tensors[f"{name}.bias"] = torch.zeros(conv.bias.shape, dtype=torch.float32)
    save_file(tensors, str(path))


def write_pictures(folder: Path, count: int = 16, size: tuple[int, int] = (640, 480)) -> None:
    """JPEG files of about a photograph's size and smoothness."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
