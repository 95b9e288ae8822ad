"""What callers of adaattn_core catch."""

from __future__ import annotations


class CheckpointError(Exception):
    """A weights file that cannot be used; one line: what came, what is needed, what to do."""


class ImageError(ValueError):
    """A file that cannot be read or written as asked; one line: what came, what is needed, what to do."""


class DataError(ValueError):
    """Training pictures that cannot be used; one line: what came, what is needed, what to do."""


class TrainingError(RuntimeError):
    """Training cannot go on; one line: the step, the cause, what to do."""
