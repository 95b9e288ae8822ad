"""Exceptions of adaattn_core. Every message is one line: what came, what is needed, what to do."""

from __future__ import annotations


class AdaAttNError(Exception):
    """Base class of the exceptions that the library defines.

    Wrong arguments raise a plain ValueError and are not part of this hierarchy.
    """


class ImageError(AdaAttNError, ValueError):
    """An image or video file, or an image tensor, cannot be read or converted."""


class CheckpointError(AdaAttNError):
    """A weights file cannot be used."""


class DataError(AdaAttNError, ValueError):
    """Training data cannot be used."""


class TrainingError(AdaAttNError, RuntimeError):
    """Training cannot continue."""


class OutputError(AdaAttNError, ValueError):
    """An output file cannot be written: missing folder, no permission, disk full."""


class ImageOutputError(OutputError, ImageError):
    """`save_image` cannot write its file. Also an ImageError, so that one `except` covers reading and writing."""
