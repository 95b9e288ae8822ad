"""Progress of long work on stderr: tqdm where it is installed, else a counter line of our own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Progress(Protocol):
    """What long work reports to, in a `with` block; tqdm's names, so that tqdm is one."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...

    def update(self, n: int = 1, /) -> object:
        """`n` more units are done."""

    def set_postfix_str(self, s: str, refresh: bool, /) -> object:
        """Words after the counter; with `refresh` False they are shown at the next update."""


def progress_bar(total: int | None, initial: int = 0, unit: str = "step", enabled: bool | None = None) -> Progress:
    """A progress line that starts at `initial` of `total` units.

    Args:
        total: units in all; None where nobody knows.
        initial: units done before, which the rate leaves out.
        unit: name of one unit.
        enabled: False shows nothing, True always shows, None shows where stderr is a terminal.
    """
    hidden = not (sys.stderr.isatty() if enabled is None else enabled)
    try:
        from tqdm import tqdm  # imported late: it belongs to the extra [train], and the core works without
    except ImportError:
        return CounterLine(total, initial, unit, hidden)
    bar: Progress = tqdm(total=total, initial=initial, unit=unit, disable=hidden, dynamic_ncols=True)
    return bar


class CounterLine:
    """`12/100 step, 3.1 step/s, 0:28 left`, rewritten in place at most five times a second."""

    def __init__(self, total: int | None, initial: int = 0, unit: str = "step", hidden: bool = False) -> None:
        self.total, self.initial, self.unit, self.hidden = total, initial, unit, hidden
        self.done, self.words = initial, ""
        self.started = time.monotonic()
        self.shown = -float("inf")
        self.width = 0

    def __enter__(self) -> CounterLine:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._show()
        if not self.hidden:
            sys.stderr.write("\n")

    def update(self, n: int = 1, /) -> None:
        self.done += n
        if time.monotonic() - self.shown >= 0.2:
            self._show()

    def set_postfix_str(self, s: str, refresh: bool, /) -> None:
        self.words = s
        if refresh:
            self._show()

    def line(self, seconds: float) -> str:
        """The line as it reads after so many seconds."""
        text = f"{self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"
        fresh = self.done - self.initial
        if fresh > 0 and seconds > 0:
            rate = fresh / seconds
            text += f", {rate:.2f} {self.unit}/s" if rate >= 1 else f", {1 / rate:.2f} s/{self.unit}"
            if self.total is not None:
                text += f", {clock(max(0, self.total - self.done) / rate)} left"
        return f"{text}, {self.words}" if self.words else text

    def _show(self) -> None:
        if self.hidden:
            return
        self.shown = time.monotonic()
        text = self.line(self.shown - self.started)
        sys.stderr.write("\r" + text.ljust(self.width))  # blanks cover a longer line before
        sys.stderr.flush()
        self.width = len(text)


def clock(seconds: float) -> str:
    """`m:ss`, from an hour on `h:mm:ss`.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


ProgressCallback = Callable[[float], None]
"""Called with the share of the work that is done, rising to 1; stops the work by raising."""


def sub_progress(progress: ProgressCallback | None, start: float, stop: float) -> ProgressCallback | None:
    """What tells `progress` of the part of the work between two shares of the whole."""
    return None if progress is None else lambda done: progress(start + (stop - start) * done)
