"""Measure speed and peak memory, beside the published algorithm."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import torch

from ..benchmarking.inference import REFERENCE_FILE, SIZES, SUBJECTS, compare, config_of
from ..benchmarking.scaling import describe
from ..benchmarking.training import (
    Rates,
    describe_bottleneck,
    measure_rates,
    warmed_up_trainer,
    write_pictures,
    write_random_vgg,
)
from ..checkpoints.tensor_file import read_metadata
from ..io.files import TEMPORARY, atomic_path, folder_in_use, remove_leftovers
from ..training.config import TrainConfig
from .shared.idle_options import Idle, changed_options, remark_idle
from .shared.options import integer, pixels, positive_integer
from .shared.paths import check_folder
from .train import add_settings, changed_settings, given_settings

CURVE_SIZES = (256, 512, 1024, 2048, 4096)
IDLE = (
    Idle(
        "--weights", lambda args: not any(name.startswith(("reference", "published")) for name in args.subjects),
        "on these subjects, which are built in",
    ),
)  # fmt: skip
IDLE_BEFORE_TRAIN = (
    Idle("--sizes --subjects --repeats --weights --curve", lambda args: True, "on adaattn bench train"),
)  # fmt: skip
IDLE_IN_TRAIN = (
    Idle("--workers", lambda args: True, "on adaattn bench train, which compares the numbers in --worker-counts"),
    Idle(
        "--steps --distill-steps --reconstruct-steps", lambda args: True,
        "on adaattn bench train, which runs --measured-steps steps of the style stage",
    ),
    Idle(
        "--output --checkpoint-every --keep-checkpoints --sample-every --tensorboard", lambda args: True,
        "on adaattn bench train, which saves nothing",
    ),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subcommands = parser.add_subparsers(
        metavar="train", help="measure training instead: see adaattn bench train --help"
    )
    training = subcommands.add_parser("train", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    _add_train_arguments(training)
    training.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="show where errors came from"
    )
    training.set_defaults(run=run_train, parser=training, outer=parser)
    parser.epilog = "subjects:\n" + "\n".join(f"  {name:20}{description}" for name, description in SUBJECTS.items())
    parser.add_argument(
        "--sizes", type=_sizes, default=list(SIZES), metavar="PX,PX",
        help=f"sides of the square pictures (default: {','.join(map(str, SIZES))})",
    )  # fmt: skip
    parser.add_argument(
        "--subjects", type=_subjects, default=list(SUBJECTS), metavar="A,B", help="what to measure (default: all)"
    )
    parser.add_argument(
        "--repeats",
        type=positive_integer,
        default=3,
        metavar="N",
        help="processes per measurement (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE",
        help="a file that adaattn convert has made, for the subjects reference and published* (default: random "
        "weights, whose flat attention is the slowest case)",
    )  # fmt: skip
    parser.add_argument(
        "--curve", action="store_true",
        help="fit seconds and memory against pixels over the sizes, at least three, and extrapolate up to 4096",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the measurements as JSON")


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_folder(args.output.parent)
    if args.weights:
        read_metadata(args.weights)  # reports a wrong file before the first process starts
    subjects = args.subjects
    if not REFERENCE_FILE.is_file() and "reference" in subjects:
        subjects = [subject for subject in subjects if subject != "reference"]
        print("The reference is left out: it is part of the repository, not of the installed package.")
    if args.curve and len(set(args.sizes)) < 3:
        raise ValueError(f"{len(set(args.sizes))} sizes came; --curve needs at least 3. Add some to --sizes.")
    remark_idle(IDLE, args)
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for size in args.sizes:
        measured = compare(subjects, size, args.repeats, args.weights)
        print(table(measured, size), flush=True)
        rows += measured
        _save(args.output, rows, curves)
    for subject in subjects if args.curve else ():
        of_subject = [row for row in rows if row["subject"] == subject]
        curves.append(describe(of_subject, config_of(subject, args.weights), CURVE_SIZES))
        print(curve_table(curves[-1]), flush=True)
    if curves:
        _save(args.output, rows, curves)
    return 0


def _save(path: Path | None, rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
    """Write the measurements so far: a later size may exceed the machine's memory."""
    if path is None:
        return
    machine = platform.processor() or platform.machine()
    numbers = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
    if curves:
        numbers["curves"] = curves
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")


def table(rows: list[dict[str, Any]], size: int) -> str:
    """The measurements of one size as a text table."""
    headers = f"{'seconds':>9}{'spread':>16}{'x ref':>8}{'GFLOP':>9}{'GFLOP/s':>9}{'GB':>7}{'peak GiB':>10}{'x ref':>8}"
    lines = [f"\n{size} x {size}", f"{'':18}{headers}"]
    for row in rows:
        spread = f"{row['fastest']:.2f}..{row['slowest']:.2f}"
        time_ratio, memory_ratio = (f"{row[key]:.2f}" if key in row else "-" for key in ("time_ratio", "memory_ratio"))
        rate = row["gflop"] / row["seconds"]
        work = f"{row['gflop']:9.0f}{rate:9.0f}{row['gigabytes']:7.1f}"
        times = f"{row['seconds']:9.2f}{spread:>16}{time_ratio:>8}"
        lines.append(f"{row['subject']:18}{times}{work}{row['peak_gib']:10.2f}{memory_ratio:>8}")
    return "\n".join(lines)


def curve_table(curve: dict[str, Any]) -> str:
    """The curves of a subject as text; a dash marks a size that was not measured."""
    seconds, memory = curve["seconds"], curve["peak_gib"]
    headers = ("size", "seconds", "fit", "peak GiB", "fit", "GFLOP", "GB", "convolutions", "attention, all pairs")
    lines = [
        f"\n{curve['subject']}, p in million pixels:",
        f"  seconds = {seconds['constant']:.3g} + {seconds['linear']:.3g} p + {seconds['square']:.3g} p^2",
        f"  peak GiB = {memory['constant']:.3g} + {memory['linear']:.3g} p",
        "  attention and convolution take the same time at " + _side(curve["crossover"])
        + ("" if "crossover_by_arithmetic" not in curve else
           ", and the same arithmetic at " + _side(curve["crossover_by_arithmetic"])),
        "".join(f"{header:>{max(9, len(header) + 2)}}" for header in headers),
    ]  # fmt: skip
    names = ("seconds", "seconds_fit", "peak_gib", "peak_gib_fit", "gflop", "gigabytes", "gflop_convolutions",
             "gflop_attention")  # fmt: skip
    for point in curve["points"]:
        cells = [str(point["size"]), *(f"{point[name]:.4g}" if name in point else "-" for name in names)]
        lines.append("".join(f"{cell:>{max(9, len(header) + 2)}}" for cell, header in zip(cells, headers, strict=True)))
    return "\n".join(lines)


def _side(side: int | None) -> str:
    return "no size" if side is None else f"{side} x {side}"


def _sizes(text: str) -> list[int]:
    return [pixels(size) for size in text.split(",")]


def _subjects(text: str) -> list[str]:
    subjects = text.split(",")
    for subject in subjects:
        if subject not in SUBJECTS:
            raise ArgumentTypeError(f"unknown subject {subject!r}; known are {', '.join(SUBJECTS)}")
    return subjects


# adaattn bench train

TRAIN_DESCRIPTION = """\
Measure the speed of training and its bottleneck: the computation or the loading of pictures. All settings of adaattn
train are accepted. Their defaults here are small, so that a minute is enough: 128-pixel crops, batches of 4, synthetic
pictures of 640x480, and a VGG-19 with random weights, which is as fast as the real one. Nothing is saved.
"""
SMALL_SETTINGS: dict[str, Any] = {"crop": 128, "batch": 4}


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = TRAIN_DESCRIPTION
    parser.epilog = "example:\n  adaattn bench train --config first.toml --worker-counts 1,4,8"
    parser.add_argument(
        "--worker-counts", type=_counts, default=[0, 1, 2], metavar="N,N",
        help="numbers of worker processes to compare (default: 0,1,2)",
    )  # fmt: skip
    parser.add_argument(
        "--measured-steps",
        type=positive_integer,
        default=4,
        metavar="N",
        help="steps per measurement (default: %(default)s)",
    )
    add_settings(parser)


def run_train(args: argparse.Namespace) -> int:
    remark_idle(IDLE_BEFORE_TRAIN, args, changed_options(args, args.outer))
    remark_idle(IDLE_IN_TRAIN, args, changed_settings(args))
    parent = tempfile.gettempdir()
    remove_leftovers(parent)
    with folder_in_use(parent), tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        config = _train_config(given_settings(args), Path(folder))
        trainer = warmed_up_trainer(config)
        print(_train_title(config, str(trainer.device), str(trainer.autocast_dtype or "float32")))
        rates = []
        for workers in args.worker_counts:
            rates.append(measure_rates(trainer, workers, args.measured_steps))
            print(_train_line(rates[-1]), flush=True)
    print(describe_bottleneck(rates, config.batch, str(trainer.device)))
    return 0


def _train_config(given: dict[str, Any], folder: Path) -> TrainConfig:
    """The given settings; missing pictures and weights are synthetic files in `folder`."""
    settings = SMALL_SETTINGS | given | {"output": str(folder / "run")}
    for part in ("content", "style"):
        if part not in given:
            settings[part] = str(folder / part)
            write_pictures(folder / part)
    if "vgg" not in given:
        settings["vgg"] = str(folder / "vgg.safetensors")
        write_random_vgg(folder / "vgg.safetensors")
    return TrainConfig(**settings)


def _train_title(config: TrainConfig, device: str, dtype: str) -> str:
    model = f"{config.architecture} {config.kind} model, batch {config.batch}, crop {config.crop}, {config.optimizer}"
    hardware = f"{device}, {dtype.removeprefix('torch.')}{', compiled' if config.compile else ''}"
    headers = f"{'workers':>7}{'reading alone':>20}{'training':>16}{'':>18}{'waiting':>10}"
    return f"{model}; {hardware}\n{headers}"


def _train_line(row: Rates) -> str:
    return (
        f"{row.workers:7}{row.read:11.1f} pairs/s{row.steps:10.2f} steps/s{row.pictures:9.2f} pictures/s"
        f"{row.waiting:9.0%}"
    )


def _counts(text: str) -> list[int]:
    counts = [integer(part) for part in text.split(",")]
    if min(counts) < 0:
        raise ArgumentTypeError(f"{text} is out of range; numbers of workers must be 0 or more")
    return counts
