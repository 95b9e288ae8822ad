"""Progress of long work: a line on stderr for people, and callbacks with the completed fraction for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeAlias

from tqdm import tqdm

ProgressBar: TypeAlias = "tqdm[NoReturn]"

ProgressCallback = Callable[[float], None]
"""Called with the completed fraction of the work, rising to 1. An exception it raises ends the work."""


def progress_bar(total: int | None, initial: int = 0, unit: str = "step", enabled: bool | None = None) -> ProgressBar:
    """A progress line on stderr, to be used in a `with` block.

    Args:
        total: number of units; None if unknown.
        initial: units completed earlier, which the rate leaves out.
        unit: name of one unit.
        enabled: None shows the line if stderr is a terminal.
    """
    disable = None if enabled is None else not enabled  # tqdm's None: hidden unless stderr is a terminal
    return tqdm(total=total, initial=initial, unit=f" {unit}", disable=disable, dynamic_ncols=True, mininterval=0.2)


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
