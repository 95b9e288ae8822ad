"""Output files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

StrPath = str | os.PathLike[str]


@contextmanager
def atomic_path(path: StrPath, error_type: type[OutputError] = OutputError) -> Iterator[Path]:
    """A temporary path to write to, in the folder of `path` and with its suffix; renamed to `path` on success.

    If the block ends early (Ctrl-C included), the temporary file is removed and an existing `path` is unchanged.

    Raises:
        OutputError, or `error_type`: the folder does not exist, or the file cannot be written (disk full, no
            permission). OSErrors about other files pass through.
    """
    check_output_path(path, error_type)
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".adaattn-{secrets.token_hex(4)}{Path(path).suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError) or str(error.filename) not in ("None", str(temporary)):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise error_type(f"disk full while writing {path}. Free some space or choose another disk.") from error
        raise error_type(f"{path} cannot be written: {error_reason(error)}. Choose another folder.") from error


def check_output_path(path: StrPath, error_type: type[OutputError] = OutputError) -> None:
    """Raises `error_type` if the folder of `path` does not exist, or if `path` exists and is not a file."""
    folder = Path(path).parent
    if not os.path.isdir(folder):
        raise error_type(f"{folder} is not a folder, so {path} cannot be written. Create the folder first.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise error_type(f"{path} is not a file, so it cannot be overwritten. Name a file.")


def error_reason(error: Exception) -> str:
    """The message of an error in one line; the name of its class if it has no message."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(message.split()) or type(error).__name__
