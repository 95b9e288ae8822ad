"""The entry point of `adaattn` and `python -m adaattn_core`, which answers Ctrl-C while torch is still imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from .runtime.standard_streams import open_closed_streams


def main() -> int:
    """Runs the command line with the arguments of the process."""
    open_closed_streams()
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # not where Ctrl-C is ignored, as in jobs in the background
        signal.signal(signal.SIGINT, _leave)
    from .cli import main as run

    signal.signal(signal.SIGINT, previous)
    return run()


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: nothing is open yet, and libraries in C turn an exception into errors of their own."""
    print("adaattn: interrupted", file=sys.stderr, flush=True)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
