"""Errors as a person reads them: an exit code and one line."""

from __future__ import annotations

import errno

from ..errors import CheckpointError, TrainingError
from ..runtime.memory import is_out_of_memory

WRONG_INPUT = 2
FAILED = 1
INTERRUPTED = 130
TERMINATED = 143

OUT_OF_MEMORY = (
    "out of memory. Make the pictures smaller (--size; in training --crop or --batch), or use --max-memory-gb or "
    "--device cpu where the command has them."
)


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and line: what came, what is needed, what to do."""
    if is_out_of_memory(error):
        return WRONG_INPUT, OUT_OF_MEMORY
    if isinstance(error, OSError) and error.strerror:
        return WRONG_INPUT, _explain_os_error(error)
    line = " ".join(str(error).split())
    if isinstance(error, ValueError | CheckpointError | OSError) and line:
        return WRONG_INPUT, line
    if isinstance(error, TrainingError):
        return FAILED, line
    return FAILED, f"unexpected {type(error).__name__}: {line}. Please report it, with what --verbose shows."


def _explain_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}disk full. Free some space or choose another disk."
    return f"{where}{error.strerror}. Check the path and its permissions."
