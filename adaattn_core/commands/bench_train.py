"""Measure how fast a training goes, and what holds it up."""

from __future__ import annotations

import argparse
import tempfile
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from ..benchmarking.training import (
    Rates,
    describe_bottleneck,
    rates,
    warmed_up_trainer,
    write_pictures,
    write_random_vgg,
)
from ..training.config import TrainConfig
from .options import integer, positive_integer
from .train import add_settings, given_settings

DESCRIPTION = """\
Measure how fast a training goes, and what holds it up: the computation or the reading of pictures. All settings of
adaattn train are understood; what is not given is small, so that a minute is enough: 128-pixel crops, batches of 4,
made-up pictures of 640x480, and a VGG-19 with random weights, which takes as long as the true one. Nothing is saved.
"""
SMALL: dict[str, Any] = {"crop": 128, "batch": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog = "example:\n  adaattn bench train --config first.toml --worker-counts 1,4,8"
    parser.add_argument(
        "--worker-counts", type=_counts, default=[0, 1, 2], metavar="N,N",
        help="numbers of processes that read pictures, to be compared (default: 0,1,2)",
    )  # fmt: skip
    parser.add_argument(
        "--measured-steps",
        type=positive_integer,
        default=4,
        metavar="N",
        help="steps for each number (default: %(default)s)",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="adaattn-") as folder:
        config = _config(given_settings(args), Path(folder))
        measured = warmed_up_trainer(config)
        print(_title(config, str(measured.device), str(measured.autocast_dtype or "float32")))
        found = []
        for workers in args.worker_counts:
            found.append(rates(measured, workers, args.measured_steps))
            print(_line(found[-1]), flush=True)
    print(describe_bottleneck(found, config.batch, str(measured.device)))
    return 0


def _config(given: dict[str, Any], folder: Path) -> TrainConfig:
    """The settings that were given; what is missing is made up in `folder`."""
    settings = SMALL | given | {"output": str(folder / "run")}
    for part in ("content", "style"):
        if part not in given:
            settings[part] = str(folder / part)
            write_pictures(folder / part)
    if "vgg" not in given:
        settings["vgg"] = str(folder / "vgg.safetensors")
        write_random_vgg(folder / "vgg.safetensors")
    return TrainConfig(**settings)


def _title(config: TrainConfig, device: str, dtype: str) -> str:
    what = f"{config.architecture} {config.kind} model, batch {config.batch}, crop {config.crop}, {config.optimizer}"
    where = f"{device}, {dtype.removeprefix('torch.')}{', compiled' if config.compile else ''}"
    heads = f"{'workers':>7}{'reading alone':>20}{'training':>16}{'':>18}{'waiting':>10}"
    return f"{what}; {where}\n{heads}"


def _line(row: Rates) -> str:
    return (
        f"{row.workers:7}{row.read:11.1f} pairs/s{row.steps:10.2f} steps/s{row.pictures:9.2f} pictures/s"
        f"{row.waiting:9.0%}"
    )


def _counts(text: str) -> list[int]:
    counts = [integer(part) for part in text.split(",")]
    if min(counts) < 0:
        raise ArgumentTypeError(f"{text} is out of range; numbers of workers are 0 or more")
    return counts
