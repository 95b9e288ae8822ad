"""Measure seconds and peak memory, beside the published algorithm."""

from __future__ import annotations

import argparse
import json
import platform
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import torch

from ..bench import REFERENCE_FILE, SIZES, SUBJECTS, compare
from ..images import atomic_path
from .options import check_folder, pixels, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "subjects:\n" + "\n".join(f"  {name:18}{what}" for name, what in SUBJECTS.items())
    parser.add_argument(
        "--sizes", type=_sizes, default=list(SIZES), metavar="PX,PX",
        help=f"sides of the square pictures (default: {','.join(map(str, SIZES))})",
    )  # fmt: skip
    parser.add_argument(
        "--subjects", type=_subjects, default=list(SUBJECTS), metavar="A,B", help="what to measure (default: all)"
    )
    parser.add_argument(
        "--repeats", type=_count, default=3, metavar="N", help="processes for each number (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the numbers as JSON, too")


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_folder(args.output.parent)
    subjects = args.subjects
    if not REFERENCE_FILE.is_file() and "reference" in subjects:
        subjects = [subject for subject in subjects if subject != "reference"]
        print("The reference is left out: it is part of the repository, not of the installed package.")
    rows = []
    for size in args.sizes:
        found = compare(subjects, size, args.repeats)
        print(table(found, size), flush=True)
        rows += found
    if args.output:
        machine = platform.processor() or platform.machine()
        numbers = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        with atomic_path(args.output) as temporary:
            temporary.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Rows of one size for people."""
    lines = [f"\n{size} x {size}", f"{'':18}{'seconds':>9}{'spread':>16}{'x ref':>8}{'peak GiB':>10}{'x ref':>8}"]
    for row in rows:
        spread = f"{row['fastest']:.2f}..{row['slowest']:.2f}"
        ratios = [f"{row[key]:.2f}" if key in row else "-" for key in ("time_ratio", "memory_ratio")]
        numbers = f"{row['seconds']:9.2f}{spread:>16}{ratios[0]:>8}{row['peak_gib']:10.2f}{ratios[1]:>8}"
        lines.append(f"{row['subject']:18}{numbers}")
    return "\n".join(lines)


def _sizes(text: str) -> list[int]:
    return [pixels(size) for size in text.split(",")]


def _subjects(text: str) -> list[str]:
    subjects = text.split(",")
    for subject in subjects:
        if subject not in SUBJECTS:
            raise ArgumentTypeError(f"unknown subject {subject!r}; known are {', '.join(SUBJECTS)}")
    return subjects


def _count(text: str) -> int:
    count = whole(text)
    if count < 1:
        raise ArgumentTypeError(f"{text} is out of range; it must be at least 1")
    return count
