"""Exceptions of adaattn_core. Every message is one line: what came, what is needed, what to do."""

from __future__ import annotations

import re

LONGEST_LINE = 2000
"""Characters of a message; of a longer one the middle is left out."""
LONGEST_NAME = 80
"""Characters of a name that a file holds."""


def printable(text: str, limit: int = LONGEST_LINE) -> str:
    """A text that a terminal shows in one line and never obeys: other characters are escaped as Python writes them.

    Args:
        text: may hold names of files, or of tensors in them, which anybody can choose.
        limit: characters of the result; the middle of a longer text is left out.

    >>> printable("a\\x1b]0;title\\x07b")
    'a\\\\x1b]0;title\\\\x07b'
    >>> printable("0123456789" * 100, 20)
    '0123456[...]23456789'
    """
    if len(text) > limit:
        half = (limit - len("[...]")) // 2
        text = f"{text[:half]}[...]{text[half + len('[...]') - limit :]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(name: str) -> str:
    """A name from a file, for a message: in quotes unless it is plain, and shortened.

    >>> quoted("decoder.deep.bias")
    'decoder.deep.bias'
    >>> quoted("decoder is missing")
    "'decoder is missing'"
    """
    short = printable(name, LONGEST_NAME)
    return short if re.fullmatch(r"[\w.:/-]+", short) else f"'{short}'"


class AdaAttNError(Exception):
    """Base class of the exceptions that the library defines.

    Wrong arguments raise a plain ValueError and are not part of this hierarchy.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ImageError(AdaAttNError, ValueError):
    """An image or video file, or an image tensor, cannot be read or converted."""


class NotFiniteError(ImageError):
    """A model gives NaN or infinity for a picture; the message names the layer."""


class CheckpointError(AdaAttNError):
    """A weights file cannot be used."""


class DataError(AdaAttNError, ValueError):
    """Training data cannot be used."""


class TrainingError(AdaAttNError, RuntimeError):
    """Training cannot continue."""


class ExportError(AdaAttNError, RuntimeError):
    """An exported file does not paint what the model paints."""


class DownloadError(AdaAttNError):
    """A file of another project is not there, and cannot be downloaded now."""


class OutputError(AdaAttNError, ValueError):
    """An output file cannot be written: missing folder, no permission, disk full."""


class ImageOutputError(OutputError, ImageError):
    """`save_image` cannot write its file. Also an ImageError, so that one `except` covers reading and writing."""
