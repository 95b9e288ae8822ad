"""Processes that read training pictures, any of which may be killed at any moment, by the system out of memory say."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext


class StopFlag:
    """What DataLoader uses of `multiprocessing.Event`, without the lock: whoever died holding it would leave all others
    waiting for good, the process that trains among them.

    Args:
        context: how the processes are started; the flag goes to them as they start.
    """

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue(ctypes.c_bool, False)

    def is_set(self) -> bool:
        return bool(self._value.value)

    def set(self) -> None:
        self._value.value = True


def worker_context() -> BaseContext:
    """The platform's way to start processes, for DataLoader's `multiprocessing_context`: its events are StopFlags."""
    context: BaseContext = multiprocessing.get_context()
    kind = type(context)

    class Context(kind):  # type: ignore[misc, valid-type]
        def Event(self) -> StopFlag:  # noqa: N802 (multiprocessing's name)
            return StopFlag(self)

    return Context()


@contextmanager
def orphaned() -> Iterator[None]:
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
