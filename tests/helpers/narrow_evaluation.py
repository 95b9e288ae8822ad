"""`adaattn evaluate` with narrow networks, as a program: `python narrow_evaluation.py WORDS`.

NARROW_CALLS names a file to which each stylisation adds a line with the rank; "RANK NUMBER" in NARROW_KILL kills this
process at this stylisation.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import device

from adaattn_core.cli import main
from adaattn_core.commands import evaluate
from adaattn_core.errors import CheckpointError
from adaattn_core.evaluation.methods import ModelMethod
from tests.helpers.evaluation import narrow_vgg19


def offline(where: device) -> Any:  # noqa: ANN401
    raise CheckpointError("no network")


def prepare() -> None:
    """Puts narrow networks in the place of the command's."""
    vars(evaluate).update(load_vgg=lambda source="built-in", normalized=False: narrow_vgg19(), load_lpips_alex=offline,
                          peak_memory_gib=lambda method, pair, size: 0.5, has_matplotlib=lambda: False)  # fmt: skip


def watch() -> None:
    """Counts the stylisations of this process, and kills it at one of them."""
    rank, calls = os.environ.get("RANK", "0"), 0
    stylize = ModelMethod.stylize

    def watched(*args: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if os.environ.get("NARROW_KILL") == f"{rank} {calls}":
            os.kill(os.getpid(), signal.SIGKILL)
        with Path(os.environ["NARROW_CALLS"]).open("a") as file:
            file.write(f"{rank}\n")
        return stylize(*args)

    setattr(ModelMethod, "stylize", watched)  # noqa: B010 - mypy forbids the assignment


if __name__ == "__main__":
    prepare()
    watch()
    sys.exit(main(sys.argv[1:]))
