"""Formats of picture files: which are read and written, their suffixes, and plugins of Pillow that add some."""

from __future__ import annotations

import importlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import SEEK_END
from pathlib import PurePath
from typing import IO, NamedTuple

from PIL import Image

from ..ops.layout import counted
from ..runtime.remarks import remark
from .file_kinds import RAW_MESSAGE, is_raw, is_video, wrong_kind

# Raster formats only: EPS would start Ghostscript.
READ_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "JXL")
KNOWN = "PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF"
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP",
                  ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}  # fmt: skip
ALPHA_FORMATS = ("PNG", "WEBP", "TIFF")
"""Formats that `save_image` writes with opacity."""


class Plugin(NamedTuple):
    """A package that teaches Pillow a format.

    format, spelled: Pillow's name of the format, and its name in a sentence. package: to install. load: makes the
    format known to Pillow. suffixes: of its files.
    """

    format: str
    spelled: str
    package: str
    load: Callable[[], object]
    suffixes: tuple[str, ...]


PLUGINS = (
    Plugin("HEIF", "HEIC", "pillow-heif", lambda: importlib.import_module("pillow_heif").register_heif_opener(),
           (".heic", ".heics", ".heif", ".heifs", ".hif")),
    Plugin("AVIF", "AVIF", "pillow-avif-plugin", lambda: importlib.import_module("pillow_avif"),
           (".avif", ".avifs")),  # in Pillow since 11.3
    Plugin("JXL", "JPEG XL", "pillow-jxl-plugin", lambda: importlib.import_module("pillow_jxl"), (".jxl",)),
)  # fmt: skip
# Brands of ISO base media files. Sources: ISO/IEC 23008-12, the AV1 image file format; JPEG XL: ISO/IEC 18181-2.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_JXL_HEADS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")


@cache
def load_plugins() -> None:
    """Loads Pillow's own formats, and the installed plugins for those that it does not have."""
    Image.init()
    for plugin in PLUGINS:
        if plugin.format not in Image.OPEN:
            with suppress(ImportError):
                plugin.load()


def open_formats() -> list[str]:
    """The formats that can be read here."""
    load_plugins()
    return [name for name in READ_FORMATS if name in Image.OPEN]


@cache
def read_suffixes() -> frozenset[str]:
    """Suffixes of picture files in lower case: those that Pillow registers for READ_FORMATS, and those of PLUGINS."""
    load_plugins()
    registered = {suffix for suffix, name in Image.registered_extensions().items() if name in READ_FORMATS}
    return frozenset(registered.union(*(plugin.suffixes for plugin in PLUGINS)))


def is_picture_name(name: str | PurePath) -> bool:
    """Whether a file name ends in the suffix of a picture."""
    return PurePath(name).suffix.lower() in read_suffixes()


def remark_skipped(source: str, suffixes: Counter[str]) -> None:
    """Says how many files of a folder or an archive are skipped because their names are not those of pictures.

    Args:
        source: the folder, glob or archive.
        suffixes: of these files, with their numbers.
    """
    if suffixes:
        skipped = f"{counted(suffixes.total(), 'file')} skipped, as not of a known picture format"
        remark(source, f"{skipped} ({most_common(suffixes)})")


def most_common(suffixes: Counter[str]) -> str:
    """The three most common suffixes as a list of words.

    >>> most_common(Counter({".mp4": 2, ".txt": 1, "": 1, ".zip": 1}))
    '.mp4, .txt, .zip, ...'
    """
    ordered = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix == "", suffix))
    kinds = [suffix or "no suffix" for suffix in ordered[:3]]
    return ", ".join([*kinds, "..."] if len(suffixes) > len(kinds) else kinds)


def explain_unidentified(head: bytes, name: str) -> str:
    """Why a file cannot be read that is none of the formats: the rest of a sentence after its name.

    Args:
        head: its first bytes.
        name: its name, whose suffix may help.
    """
    kind = wrong_kind(head)
    if kind:
        return str(kind)
    plugin = next((one for one in PLUGINS if one.format == _plugin_format(head) and one.format not in Image.OPEN), None)
    if plugin:
        package = plugin.package
        return f"is a picture in {plugin.spelled}, which needs the package {package}. Run: pip install {package}"
    if is_raw(head, name):
        return RAW_MESSAGE
    if is_video(head):
        return "is a video; a picture is needed. Paint it with adaattn video, or save a frame of it."
    return f"is not a picture that can be read ({KNOWN}). Convert it to PNG first."


def _plugin_format(head: bytes) -> str:
    """The format of PLUGINS that the first bytes of a file belong to, or an empty text."""
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, 64, 4))} if head[4:8] == b"ftyp" else set()
    if brands.intersection(_AVIF_BRANDS):
        return "AVIF"
    if brands.intersection(_HEIF_BRANDS):
        return "HEIF"
    return "JXL" if head.startswith(_JXL_HEADS) else ""


# Bits of each value

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"jp2h": 0}
"""Boxes whose content is searched for further boxes -> bytes that come before these."""
_DEPTHS: dict[bytes, Callable[[bytes], int]] = {
    b"av1C": lambda box: 8 + 2 * bool(box[2] & 0x40) + 2 * bool(box[2] & 0x20),
    b"hvcC": lambda box: 8 + max(box[17] & 7, box[18] & 7),
    b"ihdr": lambda box: 0 if box[10] == 255 else 1 + (box[10] & 0x7F),  # 255: they differ, and bpcc follows
    b"bpcc": lambda box: 1 + max(value & 0x7F for value in box),
}
"""Boxes that state the bits of each value. Sources: AV1 codec ISO media file format binding, 2.3; ISO/IEC 14496-15,
8.3.3.1; ISO/IEC 15444-1, annex I.5.3."""
_CODESTREAM = b"\xff\x4f\xff\x51"
"""Begin of a JPEG 2000 codestream. Source: ISO/IEC 15444-1, annex A."""
_MOST_BOXES = 1000


def bits_per_value(file: IO[bytes]) -> int:
    """Bits of each value of an AVIF, HEIC or JPEG 2000 file, of which Pillow tells the high 8 only; 8 for others.

    Of a file with several pictures (opacity, a thumbnail), those of the deepest one.
    """
    position = file.tell()
    depths = [8]
    with suppress(IndexError, ValueError, struct.error):  # damage
        file.seek(0)
        head = file.read(4096)
        if head.startswith(_CODESTREAM):
            depths += [1 + (head[42 + 3 * index] & 0x7F) for index in range(int.from_bytes(head[40:42], "big"))]
        else:
            depths += [_DEPTHS[kind](content) for kind, content in _boxes(file)]
    file.seek(position)
    return max(depths)


def _boxes(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of _DEPTHS in a file: kind, and the first bytes of the content."""
    pending = [(0, file.seek(0, SEEK_END))]
    for _ in range(_MOST_BOXES):
        if not pending:
            return
        start, end = pending.pop()
        file.seek(start)
        head = file.read(16)
        size, kind = struct.unpack(">I4s", head[:8])
        begin = start + 8
        if size == 1:
            (size,), begin = struct.unpack(">Q", head[8:]), start + 16
        stop = min(start + size, end) if size else end
        if stop < begin:
            return
        if end - stop >= 8:
            pending.append((stop, end))
        if kind in _CONTAINERS:
            pending.append((begin + _CONTAINERS[kind], stop))
        elif kind in _DEPTHS:
            file.seek(begin)
            yield kind, file.read(min(stop - begin, 64))
