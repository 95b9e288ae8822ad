"""Picture files to PIL images with all pixels decoded: every format, one limit of size, and errors of one line."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from io import BytesIO
from typing import IO, Any, cast

from PIL import Image, ImageFile, UnidentifiedImageError, _imaging
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import ImageError
from ..runtime.remarks import remark
from . import tiff
from .file_kinds import HEAD_BYTES
from .files import StrPath, error_reason
from .formats import bits_per_value, explain_unidentified, open_formats

MAX_PIXELS = 256 * 1024 * 1024
"""Largest picture that is decoded: 3 GiB as float32, and up to 3 GiB more while it is read. A larger picture is a
mistake or a decompression bomb."""

# Exceptions of Pillow's codecs on damaged data, found by cutting files and flipping bytes in the formats.
CODEC_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
                struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip
_VIDEO_READS = ("GIF", "PNG")
"""Formats of animations that `adaattn video` reads."""
_UNTOLD_DEPTHS = ("AVIF", "HEIF", "JPEG2000")
"""Formats of which Pillow decodes 8 bits and does not tell whether the file holds more."""
_pillow_lock = threading.Lock()


def decode(source: StrPath | BytesIO, name: str = "", draft_side: int = 0) -> Image.Image:
    """The picture of a file, of an animation its first frame; as the file holds it, so not yet upright or in sRGB.

    Args:
        source: a path, or the bytes of a file.
        name: of the file, for messages; a path is its own name.
        draft_side: above 0, a JPEG may be decoded at a reduced scale with at least this many pixels a side.

    Raises:
        ImageError: the file does not exist, is not a picture, is damaged or cut short, or has more than MAX_PIXELS
            pixels.
    """
    name = name or str(source)
    with _open(source, name) as file, quiet_decoders:
        try:
            picture = _identify(file)
            if picture.width * picture.height <= MAX_PIXELS:
                problem = tiff.check_page(picture, name) if isinstance(picture, TiffImageFile) else None
                if problem:
                    raise ImageError(f"{name} {problem}")
                return _load(picture, file, name, draft_side)
            size = f"{picture.width}x{picture.height} pixels"
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} {_explain(file, name)}") from error
        except CODEC_ERRORS as error:
            raise ImageError(
                f"{name} is damaged or cut short ({error_reason(error)}). Download or export it again."
            ) from error
    raise ImageError(f"{name} is {size}; at most {MAX_PIXELS // 10**6} million pixels are read. Resize it first.")


@contextmanager
def _open(source: StrPath | BytesIO, name: str) -> Iterator[IO[bytes]]:
    """The file, with an ImageError where it cannot be opened."""
    if isinstance(source, BytesIO):
        yield source
        return
    if os.path.isdir(source):
        raise ImageError(f"{name} is a folder; a picture file is needed. Name a file in it.")
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; opened separately to distinguish file errors from picture errors
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist. Check its name and folder.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"{name} cannot be read: {error_reason(error)}. Check its name and permissions.") from error
    with file:
        yield file


def _identify(file: IO[bytes]) -> ImageFile.ImageFile:
    """The picture with its header read."""
    with _pillow_settings():
        return Image.open(file, formats=open_formats())


def _load(picture: ImageFile.ImageFile, file: IO[bytes], name: str, draft_side: int) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    is_large = limit is not None and picture.width * picture.height > limit  # Pillow compares again in some formats
    with _pillow_settings() if is_large or ImageFile.LOAD_TRUNCATED_IMAGES else nullcontext():
        _remark_frames(picture, name)
        _remark_depth(picture, file, name)
        if draft_side:
            picture.draft("RGB", (draft_side, draft_side))
        tags = dict(picture.tag_v2) if isinstance(picture, TiffImageFile) else {}
        picture.load()
    return tiff.correct_values(picture, tags, name) if tags else picture


def _remark_frames(picture: ImageFile.ImageFile, name: str) -> None:
    """Says that a file holds more than the picture that is used."""
    try:
        count = _frame_count(picture)
    except CODEC_ERRORS:  # damage after the first frame, which is not needed
        return
    if count <= 1:
        return
    if picture.format in _VIDEO_READS:
        advice = f"adaattn video {name} --style S -o OUT.mp4 paints them all"
    elif picture.format in ("WEBP", "AVIF"):
        advice = "save it as a GIF or a clip to paint them all with adaattn video"
    else:
        advice = "save the others as files of their own to use them"
    remark(name, f"the first of its {count} frames is used; {advice}")


def _remark_depth(picture: ImageFile.ImageFile, file: IO[bytes], name: str) -> None:
    """Says that Pillow keeps 8 bits of colours that have more; grey of 16 bits has a mode of its own.

    Read in full, they would need another decoder, and results are written with 8 bits.
    """
    bits = 8 if picture.mode[0] in "IF" else _depth(picture, file)
    if bits > 8:
        remark(name, f"its values of {bits} bits are read with 8 bits, as results are written")


def _depth(picture: ImageFile.ImageFile, file: IO[bytes]) -> int:
    """Bits of each value in the file of a picture."""
    if picture.format in _UNTOLD_DEPTHS:
        return bits_per_value(file)
    arguments = [tile[3] for tile in getattr(picture, "tile", ())[:1]]
    if picture.format == "PPM" and arguments and isinstance(arguments[0], tuple):
        return max(8, *(value.bit_length() for value in arguments[0] if isinstance(value, int)))
    return 16 if any(";16" in str(argument) for argument in arguments) else 8


def _frame_count(picture: ImageFile.ImageFile) -> int:
    """Frames or pages; previews and the gain maps of telephones' JPEG files, which are smaller, do not count."""
    if isinstance(picture, TiffImageFile):
        return tiff.page_count(picture)
    count = int(getattr(picture, "n_frames", 1))
    if picture.format != "MPO" or count == 1:
        return count
    size = picture.size
    same = 0
    for frame in reversed(range(count)):  # ends at the first, which is read
        picture.seek(frame)
        same += picture.size == size
    return same


def _explain(file: IO[bytes], name: str) -> str:
    """Why Pillow does not know a file: the rest of a sentence after its name."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    return tiff.explain_unidentified(file, name) if tiff.is_tiff(head) else explain_unidentified(head, name)


class _QuietDecoders:
    """Pillow's warnings and the lines that libtiff prints on standard error are left out while a picture is decoded.

    An error of ours says what is wrong with a file. Several threads may decode at once: the first turns both off, the
    last turns them on again, and the settings of everybody else stay as they are.
    """

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.filter: Any = None
        self.handler: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.filter = warnings.filters[0]
                self.handler = self._set_handler(None)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0:
                with suppress(ValueError):  # somebody has reset the filters
                    warnings.filters.remove(self.filter)  # type: ignore[attr-defined]  # typed as a sequence
                self._set_handler(self.handler)

    @cached_property
    def _set_handler(self) -> Callable[[int | None], int | None]:
        """libtiff's TIFFSetErrorHandler, which returns the handler of before; without effect where Pillow hides it."""
        try:
            function = ctypes.CDLL(str(_imaging.__file__)).TIFFSetErrorHandler
        except (AttributeError, OSError):
            return lambda handler: None
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        return cast("Callable[[int | None], int | None]", function)


quiet_decoders = _QuietDecoders()


@contextmanager
def _pillow_settings() -> Iterator[None]:
    """Turns off Pillow's global size limit (MAX_PIXELS replaces it) and its global tolerance of truncated files."""
    with _pillow_lock:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before
