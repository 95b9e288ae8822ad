"""Measure seconds and peak memory, beside the published algorithm."""

from __future__ import annotations

import argparse
import json
import platform
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import torch

from ..benchmarking.inference import REFERENCE_FILE, SIZES, SUBJECTS, compare, config_of
from ..benchmarking.scaling import describe
from ..checkpoints.model_file import read_metadata
from ..commands import bench_train
from ..io.files import atomic_path
from .options import check_folder, pixels, positive_integer

CURVE_SIZES = (256, 512, 1024, 2048, 4096)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    others = parser.add_subparsers(metavar="train", help="measure training instead: see adaattn bench train --help")
    training = others.add_parser("train", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    bench_train.add_arguments(training)
    training.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="show where errors came from"
    )
    training.set_defaults(run=bench_train.run)
    parser.epilog = "subjects:\n" + "\n".join(f"  {name:18}{what}" for name, what in SUBJECTS.items())
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
        help="processes for each number (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE",
        help="a full-size model file for the reference and the full-size subjects (default: random weights, whose flat "
        "attention is the slowest case)",
    )  # fmt: skip
    parser.add_argument(
        "--curve", action="store_true",
        help="fit seconds and memory against pixels over the sizes, at least three, and extrapolate up to 4096",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the numbers as JSON, too")


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_folder(args.output.parent)
    if args.weights:
        read_metadata(args.weights)  # a wrong file is one clear line now, not a failed process later
    subjects = args.subjects
    if not REFERENCE_FILE.is_file() and "reference" in subjects:
        subjects = [subject for subject in subjects if subject != "reference"]
        print("The reference is left out: it is part of the repository, not of the installed package.")
    if args.curve and len(set(args.sizes)) < 3:
        raise ValueError(f"{len(set(args.sizes))} sizes came; --curve needs at least 3. Add some to --sizes.")
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for size in args.sizes:
        found = compare(subjects, size, args.repeats, args.weights)
        print(table(found, size), flush=True)
        rows += found
        _keep(args.output, rows, curves)
    for subject in subjects if args.curve else ():
        mine = [row for row in rows if row["subject"] == subject]
        curves.append(describe(mine, config_of(subject, args.weights), CURVE_SIZES))
        print(curve_table(curves[-1]), flush=True)
    if curves:
        _keep(args.output, rows, curves)
    return 0


def _keep(path: Path | None, rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
    """Write what is measured by now: a later size may be too much for the machine."""
    if path is None:
        return
    machine = platform.processor() or platform.machine()
    numbers = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
    if curves:
        numbers["curves"] = curves
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Rows of one size for people."""
    heads = f"{'seconds':>9}{'spread':>16}{'x ref':>8}{'GFLOP':>9}{'GFLOP/s':>9}{'GB':>7}{'peak GiB':>10}{'x ref':>8}"
    lines = [f"\n{size} x {size}", f"{'':18}{heads}"]
    for row in rows:
        spread = f"{row['fastest']:.2f}..{row['slowest']:.2f}"
        time_ratio, memory_ratio = (f"{row[key]:.2f}" if key in row else "-" for key in ("time_ratio", "memory_ratio"))
        rate = row["gflop"] / row["seconds"]
        work = f"{row['gflop']:9.0f}{rate:9.0f}{row['gigabytes']:7.1f}"
        times = f"{row['seconds']:9.2f}{spread:>16}{time_ratio:>8}"
        lines.append(f"{row['subject']:18}{times}{work}{row['peak_gib']:10.2f}{memory_ratio:>8}")
    return "\n".join(lines)


def curve_table(curve: dict[str, Any]) -> str:
    """A subject's curves for people; what was not measured shows a dash."""
    seconds, memory = curve["seconds"], curve["peak_gib"]
    heads = ("size", "seconds", "fit", "peak GiB", "fit", "GFLOP", "GB", "convolutions", "attention, all pairs")
    lines = [
        f"\n{curve['subject']}, p in million pixels:",
        f"  seconds = {seconds['constant']:.3g} + {seconds['linear']:.3g} p + {seconds['square']:.3g} p^2",
        f"  peak GiB = {memory['constant']:.3g} + {memory['linear']:.3g} p",
        "  attention and convolution take the same time at " + _side(curve["crossover"])
        + ("" if "crossover_by_arithmetic" not in curve else
           ", and the same arithmetic at " + _side(curve["crossover_by_arithmetic"])),
        "".join(f"{head:>{max(9, len(head) + 2)}}" for head in heads),
    ]  # fmt: skip
    names = ("seconds", "seconds_fit", "peak_gib", "peak_gib_fit", "gflop", "gigabytes", "gflop_convolutions",
             "gflop_attention")  # fmt: skip
    for point in curve["points"]:
        cells = [str(point["size"]), *(f"{point[name]:.4g}" if name in point else "-" for name in names)]
        lines.append("".join(f"{cell:>{max(9, len(head) + 2)}}" for cell, head in zip(cells, heads, strict=True)))
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
