"""Being asked to stop: Ctrl-C, and the SIGTERM of job queues, containers and shutdowns, end a run the same way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM came; as with Ctrl-C, what catches errors lets it through."""


class GracefulShutdown:
    """In a `with` block, Ctrl-C and SIGTERM raise KeyboardInterrupt and Terminated: at once, or, between `hold` and
    `release`, at the latter. Outside the main thread, where Python sets no handlers, nothing changes.

    Args:
        by_agreement: never raise by themselves: several processes stop together, when all know what one was `asked`.
    """

    def __init__(self, *, by_agreement: bool = False) -> None:
        self.asked: int | None = None
        self.by_agreement = self.is_held = by_agreement
        self._before: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """From here on a stop has to wait."""
        self.is_held = True

    def resume(self) -> None:
        """Raise the stop that came meanwhile, and the next ones at once."""
        self.is_held = self.by_agreement
        if self.asked and not self.is_held:
            self.stop(self.asked)

    def stop(self, number: int) -> None:
        """Raise what the signal means."""
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if not self.is_held:
            self.stop(number)


@contextmanager
def ignore_sigchld() -> Iterator[None]:
    """No news of child processes: torch reports the end of a DataLoader's worker, which the system kills out of memory
    or a job queue terminates along with us, by an error out of a signal handler, in the middle of whatever is done
    then: an optimizer's step, a save."""
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)
