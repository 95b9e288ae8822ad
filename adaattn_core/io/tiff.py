"""TIFF files that Pillow would read wrongly without an error: their values are corrected here, or the file is refused.

Found by writing every combination of sample type, bit depth, polarity, storage and compression, and comparing what
Pillow read. Names and numbers of tags: TIFF 6.0; tags of raw files: DNG 1.4 and TIFF/EP.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from ..runtime.remarks import remark
from .file_kinds import RAW_MESSAGE, is_raw

REQUIRED = {256, 257, 262}
"""Tags of every picture: width, height and POLARITY."""
STRIPS, TILES = 273, 324
SUBFILE_TYPE, BITS, COMPRESSION, POLARITY, STORAGE, PREDICTOR, SUB_FILES, SAMPLE_FORMAT, DNG_VERSION = (
    254, 258, 259, 262, 284, 317, 330, 339, 50706,
)  # fmt: skip
WHITE_IS_ZERO, RGB, CMYK, MOSAIC, LINEAR_RAW = 0, 2, 5, 32803, 34892
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_KINDS = {UNSIGNED: "whole numbers", SIGNED: "signed numbers", FLOAT: "decimal numbers"}
_UNCOMPRESSED, _CODEC_PACKBITS, _SEPARATE_PLANES = 1, 32773, 2
_TAG_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error)
_TIFF_HEADS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a TIFF or BigTIFF."""
    return head.startswith(_TIFF_HEADS)


def check_page(picture: TiffImageFile, name: str) -> str | None:
    """Goes to the page to read, and says why it cannot be read correctly: the rest of a sentence, or None.

    A first page that is marked as a preview is passed over for the first page that is none.
    """
    tags = picture.tag_v2
    assert picture.fp is not None
    if _is_raw(tags, picture.fp, name):
        return RAW_MESSAGE
    if _is_preview(tags):
        pages = range(1, getattr(picture, "n_frames", 1))
        full = next((page for page in pages if not _is_preview(_page_tags(picture, page))), None)
        if full is None:
            return "holds only a preview of a picture. Export the picture itself."
        picture.seek(full)
        tags = picture.tag_v2
        remark(name, f"its first page is a preview; page {full + 1}, the picture itself, is used")
    packed_differences = tags.get(COMPRESSION) == _CODEC_PACKBITS and tags.get(PREDICTOR, 1) != 1
    return _refusal(tags) if packed_differences or not _can_join_planes(tags) else None


def _can_join_planes(tags: Mapping[int, Any]) -> bool:
    """Whether Pillow joins the planes of a picture correctly, if they are stored one after the other."""
    bits = tags.get(BITS, (1,))
    if tags.get(STORAGE) != _SEPARATE_PLANES or len(bits) == 1:
        return True
    is_usual = (tags.get(POLARITY), len(bits)) in ((RGB, 3), (RGB, 4), (CMYK, 4))
    return is_usual and (set(bits) == {8} or tags.get(COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED)


def page_count(picture: TiffImageFile) -> int:
    """Pages that are no previews."""
    present = picture.tell()
    count = sum(not _is_preview(_page_tags(picture, page)) for page in range(getattr(picture, "n_frames", 1)))
    picture.seek(present)
    return count


def explain_unidentified(file: IO[bytes], name: str) -> str:
    """Why Pillow does not know a TIFF: the rest of a sentence."""
    try:
        file.seek(0)
        head = file.read(8)
        tags = _read_tags(file, head + file.read(8) if head[2:4].strip(b"\x00") == b"+" else head)
    except _TAG_ERRORS:
        tags = ImageFileDirectory_v2()
    if not REQUIRED.issubset(tags) or not tags.keys() & {STRIPS, TILES}:
        return "is damaged or cut short (its description is not complete). Download or export it again."
    return RAW_MESSAGE if _is_raw(tags, file, name) else _refusal(tags)


def _read_tags(file: IO[bytes], head: bytes, offset: int | None = None) -> ImageFileDirectory_v2:
    """The tags at an offset, or of the first page."""
    tags = ImageFileDirectory_v2(head)
    file.seek(tags.next if offset is None else offset)
    tags.load(file)
    return tags


def _refusal(tags: Mapping[int, Any]) -> str:
    bits = tags.get(BITS, (1,))
    kind = _KINDS.get(tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0], "numbers of an unknown kind")
    planes = ", stored plane by plane" if tags.get(STORAGE) == _SEPARATE_PLANES else ""
    return (
        f"is a TIFF of a kind that cannot be read ({len(bits)} x {bits[0]} bit, {kind}{planes}). "
        "Export it as PNG, or as a TIFF with 8 or 16 bits."
    )


def _page_tags(picture: TiffImageFile, page: int) -> Mapping[int, Any]:
    picture.seek(page)
    return picture.tag_v2


def _is_preview(tags: Mapping[int, Any]) -> bool:
    """Whether a page is marked as a reduced copy (1) or as the mask (4) of another."""
    return bool(tags.get(SUBFILE_TYPE, 0) & 5)


def _is_raw(tags: Mapping[int, Any], file: IO[bytes], name: str) -> bool:
    """Whether the tags, or those of a picture inside, are of raw data; Canon's CR2 says so at byte 8."""
    if DNG_VERSION in tags or tags.get(POLARITY) in (MOSAIC, LINEAR_RAW) or is_raw(b"", name):
        return True
    before = file.tell()
    try:
        file.seek(0)
        head = file.read(10)
        offsets = tags.get(SUB_FILES, ())
        inside = [_read_tags(file, head[:8], offset) for offset in offsets if head[2:4].strip(b"\x00") == b"*"]
    except _TAG_ERRORS:
        return False
    finally:
        file.seek(before)
    return head[8:] == b"CR" or any(one.get(POLARITY) in (MOSAIC, LINEAR_RAW) for one in inside)


def correct_values(picture: Image.Image, tags: Mapping[int, Any], name: str) -> Image.Image:
    """Grey of other than 8 bits, or signed, as float in [0, 1]; every other picture as it is.

    White is the largest value of the sample type, but: 65535 in 32-bit files, as most programs write 16 bits there, and
    in float files the smallest of 1, 255 and 65535 that is not exceeded. A remark says where a file exceeds that.
    """
    bits, sample = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    if len(bits) != 1 or (bits[0] <= 8 and sample != SIGNED) or picture.mode == "P":
        return picture
    values = np.asarray(picture)
    if bits[0] == 8:
        values = values.view(np.int8)
    elif bits[0] == 32 and sample == UNSIGNED:
        values = values.view(np.uint32)
    white = {8: 127, 12: 4095, 16: 65535 if sample == UNSIGNED else 32767}.get(bits[0])
    grey = unit_grey(values, name, white)
    if tags.get(POLARITY) == WHITE_IS_ZERO:
        grey = 1 - grey
    result = Image.fromarray(grey)
    result.info = picture.info
    return result


def unit_grey(values: NDArray[Any], name: str, white: float | None = None) -> NDArray[np.float32]:
    """Grey values of any type in [0, 1]; see `correct_values`. NaN and infinity, which mark missing data, become black.

    Args:
        values: (H, W).
        name: of the file, for remarks.
        white: the value of white, if it is known.
    """
    is_float = values.dtype.kind == "f"
    grey = values.astype(np.float32)
    if not np.isfinite(grey).all() or grey.min() < 0:
        remark(name, "values that are negative or no numbers count as black")
        grey = np.nan_to_num(grey, posinf=0, neginf=0)
    peak = float(grey.max())
    if white is None:
        whites = (1.0, 255.0, 65535.0) if is_float else (65535.0,)
        white = next((white for white in whites if peak <= white), peak)
        if white not in whites or (is_float and white > 1):
            remark(name, f"its values reach {peak:g}; {white:g} counts as white")
    scaled: NDArray[np.float32] = np.clip(grey / np.float32(white), 0, 1)
    return scaled
