"""Signals: Ctrl-C, SIGTERM (job queues, containers, shutdowns) and SIGHUP (a closed terminal) end a run alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received; like Ctrl-C it is not an Exception, so handlers of errors do not catch it."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a process that a signal has ended, as shells report it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


def stop_word(stop: KeyboardInterrupt) -> str:
    """What a signal has done to a run, for a line about it."""
    return "terminated" if isinstance(stop, Terminated) else "interrupted"


class GracefulShutdown:
    """In a `with` block, Ctrl-C raises KeyboardInterrupt, and SIGTERM and SIGHUP raise Terminated.

    After `defer`, all wait for `resume`. Signals that the process was started to ignore (nohup, jobs in the background)
    stay ignored, and once a run is being terminated, further SIGTERM and SIGHUP do not disturb it: supervisors and
    terminals send both, or one twice. Outside the main thread, where Python sets no handlers, nothing changes.

    Args:
        by_agreement: signals only set `asked`; several processes exchange it and then call `stop` together.
    """

    def __init__(self, *, by_agreement: bool = False) -> None:
        self.asked: int | None = None
        self.by_agreement = self.is_held = by_agreement
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *_TERMINATING):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """Delay a stop until `resume`."""
        self.is_held = True

    def resume(self) -> None:
        """Raise a stop that was delayed; later ones are raised immediately."""
        self.is_held = self.by_agreement
        if self.asked and not self.is_held:
            self.stop(self.asked)

    def stop(self, number: int) -> None:
        """Raise the exception of a signal.

        Raises:
            Terminated: SIGTERM or SIGHUP.
            KeyboardInterrupt: Ctrl-C.
        """
        raise Terminated(number) if number in _TERMINATING else KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked in _TERMINATING and number in _TERMINATING:
            return
        self.asked = number
        if not self.is_held:
            self.stop(number)


@contextmanager
def ignore_sigchld() -> Iterator[None]:
    """Disable torch's SIGCHLD handler during the block.

    When a DataLoader's worker process is killed (out of memory, or by a job queue), the handler raises an error in
    the main process at an arbitrary point, such as an optimizer's step or a save.
    """
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, previous)
