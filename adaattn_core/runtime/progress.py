"""Progress of long work: a line on stderr for people, and callbacks with the completed fraction for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import NoReturn, TextIO, TypeAlias

from tqdm import tqdm

ProgressBar: TypeAlias = "tqdm[NoReturn]"

ProgressCallback = Callable[[float], None]
"""Called with the completed fraction of the work, rising to 1. An exception it raises ends the work."""


LINE_SECONDS = 60.0
"""Time between two lines in a pipe or a file."""
LINE_FORMAT = "{n_fmt} of {total_fmt}{unit}s{postfix}, {elapsed} elapsed, {remaining} left"


class Lines:
    """The file of a progress line that cannot be written over: each state of it is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        if text.strip():
            self.file.write(text.strip() + "\n")

    def flush(self) -> None:
        self.file.flush()


def progress_bar(
    total: int | None, initial: int = 0, unit: str = "step", enabled: bool | None = None, piped: bool = False
) -> ProgressBar:
    """A progress line on stderr, to be used in a `with` block.

    Args:
        total: number of units; None if unknown.
        initial: units completed earlier, which the rate leaves out.
        unit: name of one unit.
        enabled: None shows the line if stderr is a terminal.
        piped: where it is none, write a line every LINE_SECONDS instead.
    """
    if piped and enabled is None and not sys.stderr.isatty():
        bar = tqdm(
            total=total, initial=initial, unit=f" {unit}", file=Lines(sys.stderr), bar_format=LINE_FORMAT,
            miniters=1, mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, delay=LINE_SECONDS,
        )  # fmt: skip
    else:
        disable = None if enabled is None else not enabled  # tqdm's None: hidden unless stderr is a terminal
        bar = tqdm(total=total, initial=initial, unit=f" {unit}", disable=disable, dynamic_ncols=True, mininterval=0.2)
    _measure_monotonically(bar)
    return bar


def _measure_monotonically(bar: ProgressBar) -> None:
    """Takes a bar off the clock of the machine: set back by an hour, that would keep it silent for an hour."""
    bar._time = monotonic  # type: ignore[attr-defined]  # not among the types
    bar.start_t = bar.last_print_t = monotonic()


def sub_progress(progress: ProgressCallback | None, start: float, stop: float) -> ProgressCallback | None:
    """A callback for the part of the work between the fractions `start` and `stop`; None without `progress`."""
    return None if progress is None else lambda fraction: progress(start + (stop - start) * fraction)


class StepCounter:
    """A `ProgressCallback` that moves a progress bar, which counts the steps of one job after the other."""

    def __init__(self, bar: ProgressBar, steps: int) -> None:
        self.bar, self.steps, self.completed = bar, steps, 0

    def __call__(self, fraction: float) -> None:
        steps = int(fraction * self.steps)
        if steps > self.completed:
            self.bar.update(steps - self.completed)
            self.completed = steps

    def finish(self) -> None:
        """Counts the rest of this job; the next calls are about the next one."""
        self(1.0)
        self.completed = 0
