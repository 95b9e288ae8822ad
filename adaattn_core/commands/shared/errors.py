"""Errors as the command line reports them: an exit code and one line."""

from __future__ import annotations

import errno

from ...errors import AdaAttNError, ExportError, TrainingError, printable
from ...runtime.memory import is_out_of_memory

WRONG_INPUT = 2
FAILED = 1

OUT_OF_MEMORY = (
    "out of memory. Make the pictures smaller (--size; in training --crop or --batch), or use --max-memory-gb or "
    "--device cpu if the command has these options."
)


def explain(error: Exception) -> tuple[int, str]:
    """The exit code of an error and its message in one line: what came, what is needed, what to do."""
    if is_out_of_memory(error):
        return WRONG_INPUT, OUT_OF_MEMORY
    if isinstance(error, OSError) and error.strerror:
        return WRONG_INPUT, _explain_os_error(error)
    line = printable(" ".join(str(error).split()))
    if isinstance(error, TrainingError | ExportError):
        return FAILED, line
    if isinstance(error, AdaAttNError | ValueError | OSError) and line:
        return WRONG_INPUT, line
    return FAILED, f"unexpected {type(error).__name__}: {line}. Please report this error with the output of --verbose."


def _explain_os_error(error: OSError) -> str:
    prefix = f"{printable(str(error.filename))}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{prefix}disk full. Free some space or choose another disk."
    return f"{prefix}{error.strerror}. Check the path and its permissions."
