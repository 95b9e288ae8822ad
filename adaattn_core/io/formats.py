"""Formats of picture files: which are read and written, their suffixes, and plugins of Pillow that add some."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image

from ..ops.layout import counted
from ..runtime.remarks import remark
from .file_kinds import RAW_MESSAGE, is_raw, wrong_kind

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
        ordered = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix == "", suffix))
        kinds = [suffix or "no suffix" for suffix in ordered[:3]]
        more = ", ..." if len(suffixes) > len(kinds) else ""
        skipped = f"{counted(suffixes.total(), 'file')} skipped, as not of a known picture format"
        remark(source, f"{skipped} ({', '.join(kinds)}{more})")


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
    return f"is not a picture that can be read ({KNOWN}). Convert it to PNG first."


def _plugin_format(head: bytes) -> str:
    """The format of PLUGINS that the first bytes of a file belong to, or an empty text."""
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, 64, 4))} if head[4:8] == b"ftyp" else set()
    if brands.intersection(_AVIF_BRANDS):
        return "AVIF"
    if brands.intersection(_HEIF_BRANDS):
        return "HEIF"
    return "JXL" if head.startswith(_JXL_HEADS) else ""
