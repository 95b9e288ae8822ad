"""Remarks about files: what was ignored or chosen while a file was read; each is logged once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

logger = logging.getLogger(__name__)


class FileNote(NamedTuple):
    """A remark about a file, or the reason why it could not be read."""

    name: str
    text: str
    is_unreadable: bool = False


_said: set[str] = set()
_collected: ContextVar[list[FileNote] | None] = ContextVar("collected remarks", default=None)


def remark(name: str, text: str) -> None:
    """Logs a warning "name: text", once in this process; inside `collected_remarks` it is collected instead.

    Args:
        name: of the file; may be empty for a picture without a file, whose remarks are always logged.
        text: one line.
    """
    line = f"{name}: {text}" if name else text
    collected = _collected.get()
    if collected is not None:
        collected.append(FileNote(name, text))
    elif not name or line not in _said:
        _said.add(line)
        logger.warning("%s", line)


@contextmanager
def collected_remarks() -> Iterator[list[FileNote]]:
    """The remarks that this thread makes inside the block, which are not logged."""
    remarks: list[FileNote] = []
    token = _collected.set(remarks)
    try:
        yield remarks
    finally:
        _collected.reset(token)
