"""Standard input, output and error, which the program that starts a process may have closed."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Opens the null device in place of standard streams that are closed.

    Otherwise the next file that is opened takes their number, and what libraries in C print goes into this file; and
    Python has no stream to print to.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process runs
