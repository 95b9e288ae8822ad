"""A disk without room for the file that is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full, which refuses every byte, exists on Linux only")


def fill_disk(monkeypatch: pytest.MonkeyPatch, output: Path) -> None:
    """Makes the temporary file of `output` a link to a device that is always full.

    The link is made when the file gets its name, since a run removes what earlier ones have left. Only io/files.py sees
    the stand-in: other modules name files by `secrets`, too.
    """

    def named(length: int) -> str:
        (output.parent / f".adaattn-0{output.suffix}").symlink_to(FULL)
        return "0"

    monkeypatch.setattr("adaattn_core.io.files.secrets", SimpleNamespace(token_hex=named))
