"""Files, PIL images and numpy arrays <-> (B, 3, H, W) float32 in [0, 1], and whole-or-nothing writing.

Tensors hold sRGB values as stored (gamma-encoded), sizes are (height, width); PIL's (width, height) stays in this file.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor

from ..errors import ImageError, ImageOutputError
from ..ops.resize import MIN_SIDE
from .files import StrPath, _check_target, _reason, atomic_path

logger = logging.getLogger(__name__)
MAX_PIXELS = 256 * 1024 * 1024
"""Largest picture that is decoded: 3 GiB as float32. A larger one is a mistake or a decompression bomb."""

# Raster formats only: EPS would start Ghostscript. HEIF is there when pillow-heif registered it.
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif",
                  ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".heic", ".heif")  # fmt: skip
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP",
                  ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}  # fmt: skip
# What Pillow's codecs raise on damaged data, found by cutting and flipping bytes of files in the formats above.
_CODEC_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
                 struct.error, zlib.error)  # fmt: skip
_DEEP = "IF"  # modes of grey with more than 8 bits start so: I, I;16, I;16B, F
# EXIF orientation -> what turns the picture upright.
_UPRIGHT = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # fmt: skip
_pillow_lock = threading.Lock()


def load_image(path: StrPath) -> Tensor:
    """The first frame of a picture file, upright, in sRGB, over white where transparent -> (1, 3, H, W) in [0, 1].

    Raises:
        ImageError: no such file, not a picture, damaged or cut short, under 16 pixels on a side, over MAX_PIXELS.
    """
    picture = _decode(path)
    if min(picture.size) < MIN_SIDE:
        size, needed = f"{picture.width}x{picture.height}", f"at least {MIN_SIDE}x{MIN_SIDE} are needed"
        raise ImageError(f"{path} is {size} pixels; {needed}. Resize the picture first.")
    return from_pil(picture)


def load_alpha(path: StrPath) -> Tensor | None:
    """The opacity of a picture file, upright -> (1, 1, H, W) in [0, 1], 1 = opaque; None if opaque everywhere."""
    _, alpha = _split_alpha(_upright(_decode(path)))
    return None if alpha is None or bool((alpha == 1).all()) else alpha


def load_mask(path: StrPath) -> Tensor:
    """A mask from a picture file of any size, white = apply -> (1, 1, H, W) in [0, 1].

    It is the grey value times the opacity, the colour profile ignored, since a mask is data. Where the opacity
    varies and all that is visible has one grey (a shape on a transparent ground), the opacity alone is the mask.
    """
    colour, alpha = _split_alpha(_upright(_decode(path)))
    grey = _deep_grey(colour) if colour.mode[0] in _DEEP else _channels(colour.convert("L"))
    if alpha is None:
        return grey
    visible = grey[alpha > 0]
    is_shape = bool(alpha.min() < alpha.max()) and bool((visible == visible[0]).all())
    return alpha if is_shape else grey * alpha


def _decode(path: StrPath) -> Image.Image:
    """The first frame, its pixels decoded whole."""
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder; a picture file is needed. Name a file in it.")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; opened apart, to tell file errors from picture errors
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist. Check its name and folder.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path} cannot be read: {_reason(error)}. Check its name and permissions.") from error
    try:
        with file:
            with _pillow_settings():
                Image.init()
                picture = Image.open(file, formats=[name for name in _READ_FORMATS if name in Image.OPEN])
            size = f"{picture.width}x{picture.height} pixels"
            if picture.width * picture.height <= MAX_PIXELS:
                with _pillow_settings() if ImageFile.LOAD_TRUNCATED_IMAGES else nullcontext():
                    picture.load()
                return picture
    except UnidentifiedImageError as error:
        known = "PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF"
        raise ImageError(f"{path} is not a picture that can be read ({known}). Convert it to PNG first.") from error
    except _CODEC_ERRORS as error:
        raise ImageError(f"{path} is damaged or cut short ({_reason(error)}). Download or export it again.") from error
    raise ImageError(f"{path} is {size}; at most {MAX_PIXELS // 10**6} million pixels are read. Resize it first.")


@contextmanager
def _pillow_settings() -> Iterator[None]:
    """Pillow's own size limit off (MAX_PIXELS is ours), its tolerance of cut files off; both are globals, so locked."""
    with _pillow_lock:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def from_pil(picture: Image.Image) -> Tensor:
    """A PIL image of any mode: EXIF, colour profile and alpha treated as in `load_image` -> (1, 3, H, W) in [0, 1]."""
    colour, alpha = _split_alpha(_upright(picture))
    image = _srgb(colour)
    return image if alpha is None else image * alpha + (1 - alpha)


def to_pil(image: Tensor) -> Image.Image:
    """(1, 3, H, W) or (3, H, W) float in [0, 1] -> an RGB image; rounding and errors as in `to_numpy`."""
    return Image.fromarray(to_numpy(image))


def from_numpy(array: NDArray[Any]) -> Tensor:
    """(H, W, 3) or (H, W), uint8 or uint16 (full range) or float in [0, 1] -> (1, 3, H, W) float32 in [0, 1]."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or array.size == 0:
        raise ValueError(f"array is {array.shape}; (H, W, 3) or (H, W) is needed.")
    values = array.astype(np.float32)
    if array.dtype in (np.uint8, np.uint16):
        values /= np.iinfo(array.dtype).max
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"array is {array.dtype}; uint8, uint16 or float is needed. Convert it first.")
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
        raise ValueError(f"array holds values from {low:g} to {high:g}; [0, 1] is needed. Scale or clip them.")
    image = torch.from_numpy(values).clamp(0, 1)
    pattern = "h w -> 1 3 h w" if image.ndim == 2 else "h w c -> 1 c h w"
    return repeat(image, pattern).contiguous()


def to_numpy(image: Tensor) -> NDArray[np.uint8]:
    """(1, 3, H, W) or (3, H, W) float in [0, 1] -> (H, W, 3) uint8, clamped, halves rounded up."""
    if image.shape[:-2] not in ((3,), (1, 3)) or image.numel() == 0:
        raise ImageError(f"image is {tuple(image.shape)}; one picture, (1, 3, H, W) or (3, H, W), is needed.")
    return _to_bytes(image)


def _to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """(1, C, H, W) or (C, H, W) -> (H, W, C)."""
    if not image.is_floating_point():
        raise ImageError(f"image is {image.dtype}; a floating-point tensor in [0, 1] is needed. Divide by 255.")
    values = image.detach().to("cpu", torch.float32).reshape(image.shape[-3:])
    if not bool(values.isfinite().all()):
        raise ImageError("image holds NaN or infinity; finite values in [0, 1] are needed. Compute it in float32.")
    rounded = (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return np.ascontiguousarray(rearrange(rounded, "c h w -> h w c").numpy())


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF asks. Differs from ImageOps.exif_transpose: EXIF is not written back, where odd tags fail."""
    picture.load()  # first: a TIFF turns itself on loading, a PNG's EXIF may follow its pixels
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except _CODEC_ERRORS as error:
        logger.warning("unreadable EXIF ignored: %s", _reason(error))
        return picture
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _split_alpha(picture: Image.Image) -> tuple[Image.Image, Tensor | None]:
    """Straight (un-premultiplied) colour, and opacity as (1, 1, H, W), or None where the picture has none."""
    if not picture.has_transparency_data:
        return picture, None
    if picture.mode[0] in _DEEP:  # a 16-bit PNG names one grey as transparent
        return picture, _channels(Image.fromarray(np.asarray(picture) != picture.info["transparency"]).convert("L"))
    grey_or_rgb = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    straight = picture.convert(grey_or_rgb + "A")
    return straight.convert(grey_or_rgb), _channels(straight.getchannel("A"))


def _srgb(colour: Image.Image) -> Tensor:
    """An image without alpha -> (1, 3, H, W) in sRGB, by its embedded profile or else Pillow's plain conversion."""
    profile = colour.info.get("icc_profile")
    if colour.mode[0] in _DEEP:
        grey = _deep_grey(colour)
        if not profile:
            return repeat(grey, "1 1 h w -> 1 3 h w").contiguous()
        colour = Image.fromarray(_to_bytes(grey)[..., 0])  # Pillow's colour management takes 8 bits
    elif colour.mode not in ("L", "RGB", "CMYK"):
        colour = colour.convert("L" if colour.mode == "1" else "RGB")
    if profile:
        colour = _apply_profile(colour, profile)
    return _channels(colour.convert("RGB"))


def _apply_profile(colour: Image.Image, profile: bytes) -> Image.Image:
    """L, RGB or CMYK -> RGB in sRGB: relative colorimetric with black point compensation, as photo editors convert.

    A profile that is broken or made for other channels is ignored, with a warning in the log.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if colour.mode == "L" and space == "RGB":
            colour = colour.convert("RGB")
        if space.replace("GRAY", "L") != colour.mode:
            raise ValueError(f"it is for {space}, the picture is {colour.mode}")
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(colour, source, srgb, intent, "RGB", flags=flags) or colour
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        logger.warning("embedded colour profile ignored: %s", _reason(error))
        return colour


def _deep_grey(picture: Image.Image) -> Tensor:
    """16-bit, 32-bit or float grey -> (1, 1, H, W) in [0, 1].

    White is 65535, in float files the first of 1, 255 and 65535 that holds all values; beyond, the largest value.
    NaN and infinity, which float files write where there is no data, are black.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), posinf=0, neginf=0)
    peak = float(values.max())
    whites = (1.0, 255.0, 65535.0) if picture.mode == "F" else (65535.0,)
    white = next((white for white in whites if peak <= white), peak)
    return rearrange(torch.from_numpy(values / white).clamp(0, 1), "h w -> 1 1 h w")


def _channels(picture: Image.Image) -> Tensor:
    """L or RGB -> (1, 1 or 3, H, W) in [0, 1]."""
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return rearrange(torch.from_numpy(array), "h w c -> 1 c h w").contiguous().float() / 255


def save_image(image: Tensor, path: StrPath, *, alpha: Tensor | None = None, quality: int = 95) -> None:
    """Writes one picture with 8 bits per channel in the format of the suffix, whole or not at all.

    Args:
        image: (1, 3, H, W) or (3, H, W) float in [0, 1]; values outside are clamped.
        path: ends in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp.
        alpha: (1, 1, H, W) float in [0, 1], 1 = opaque; ignored by JPEG and BMP, which have none.
        quality: 1 to 100, of JPEG (with colour at full resolution, 4:4:4) and WebP.

    Raises:
        ImageError: an image or format that cannot be written; an ImageOutputError where the file system refuses.
        ValueError: quality outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; 1 to 100 is needed.")
    name, pixels = output_format(path), to_numpy(image)
    height, width = pixels.shape[:2]
    if alpha is not None and name in ("PNG", "WEBP", "TIFF"):
        if alpha.shape != (1, 1, height, width):
            raise ImageError(f"alpha is {tuple(alpha.shape)}; {(1, 1, height, width)} is needed. Resize it first.")
        pixels = np.concatenate([pixels, _to_bytes(alpha)], axis=2)
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}  # PNG, WebP and BMP skip what is not theirs
    encoded = BytesIO()  # in memory first: what fails below is then the disk, not the encoder
    try:
        Image.fromarray(pixels).save(encoded, name, **({"compression": "tiff_deflate"} if name == "TIFF" else options))
    except _CODEC_ERRORS as error:
        raise ImageError(f"{path}: {name} cannot hold {width}x{height} pixels ({_reason(error)}). Use .png.") from error
    with atomic_path(path, ImageOutputError) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def output_format(path: StrPath) -> str:
    """Pillow's name of the format `save_image` writes there; what would fail later (suffix, folder) is an error now."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITE_FORMATS:
        raise ImageError(f"{path} ends in {suffix!r}; one of {', '.join(WRITE_FORMATS)} is needed. Rename the output.")
    _check_target(path, ImageOutputError)
    return WRITE_FORMATS[suffix]
