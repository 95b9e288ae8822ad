"""Picture files, PIL images and numpy arrays to (B, 3, H, W) float32 tensors in [0, 1], and back.

Tensors hold gamma-encoded sRGB values, as files store them. Sizes are (height, width); PIL's (width, height) is used
in this module only.
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
from .files import StrPath, atomic_path, check_output_path, error_reason

logger = logging.getLogger(__name__)
MAX_PIXELS = 256 * 1024 * 1024
"""Largest picture that is decoded: 3 GiB as float32. A larger picture is a mistake or a decompression bomb."""

# Raster formats only: EPS would start Ghostscript. HEIF is available if pillow-heif has registered it.
_READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif",
                  ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".heic", ".heif")  # fmt: skip
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP",
                  ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}  # fmt: skip
# Exceptions of Pillow's codecs on damaged data, found by cutting files and flipping bytes in the formats above.
_CODEC_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
                 struct.error, zlib.error)  # fmt: skip
_DEEP = "IF"  # first letters of the grey modes with more than 8 bits: I, I;16, I;16B, F
# EXIF orientation -> the operation that turns the picture upright.
_UPRIGHT = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # fmt: skip
_pillow_lock = threading.Lock()


def load_image(path: StrPath) -> Tensor:
    """Reads the first frame of a picture file: upright, converted to sRGB, transparent parts over white.

    Returns:
        (1, 3, H, W) float32 in [0, 1].

    Raises:
        ImageError: the file does not exist, is not a picture, or is damaged or cut short; or the picture has a side
            under 16 pixels or more than MAX_PIXELS pixels.
    """
    picture = _decode(path)
    if min(picture.size) < MIN_SIDE:
        size, needed = f"{picture.width}x{picture.height}", f"at least {MIN_SIDE}x{MIN_SIDE} are needed"
        raise ImageError(f"{path} is {size} pixels; {needed}. Resize the picture first.")
    return from_pil(picture)


def load_alpha(path: StrPath) -> Tensor | None:
    """Reads the opacity of a picture file, upright.

    Returns:
        (1, 1, H, W) float32 in [0, 1], where 1 is opaque; None if the picture is opaque everywhere.
    """
    _, alpha = _split_alpha(_upright(_decode(path)))
    return None if alpha is None or bool((alpha == 1).all()) else alpha


def load_mask(path: StrPath) -> Tensor:
    """Reads a mask from a picture file of any size; white (1) means "apply".

    The mask is the grey value times the opacity. Its colour profile is ignored, since a mask is data. If the opacity
    varies and all visible pixels have one grey value (a shape on a transparent background), the opacity is the mask.

    Returns:
        (1, 1, H, W) float32 in [0, 1].
    """
    colour, alpha = _split_alpha(_upright(_decode(path)))
    grey = _deep_grey(colour) if colour.mode[0] in _DEEP else _channels(colour.convert("L"))
    if alpha is None:
        return grey
    visible = grey[alpha > 0]
    is_shape = bool(alpha.min() < alpha.max()) and bool((visible == visible[0]).all())
    return alpha if is_shape else grey * alpha


def _decode(path: StrPath) -> Image.Image:
    """The first frame with all pixels decoded."""
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder; a picture file is needed. Name a file in it.")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; opened separately to distinguish file errors from picture errors
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist. Check its name and folder.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"{path} cannot be read: {error_reason(error)}. Check its name and permissions.") from error
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
        raise ImageError(
            f"{path} is damaged or cut short ({error_reason(error)}). Download or export it again."
        ) from error
    raise ImageError(f"{path} is {size}; at most {MAX_PIXELS // 10**6} million pixels are read. Resize it first.")


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


def from_pil(picture: Image.Image) -> Tensor:
    """Converts a PIL image of any mode to (1, 3, H, W) in [0, 1]; EXIF, colour profile and alpha as in `load_image`."""
    colour, alpha = _split_alpha(_upright(picture))
    image = _srgb(colour)
    return image if alpha is None else image * alpha + (1 - alpha)


def to_pil(image: Tensor) -> Image.Image:
    """Converts (1, 3, H, W) or (3, H, W) float in [0, 1] to an RGB image; rounding and errors as in `to_numpy`."""
    return Image.fromarray(to_numpy(image))


def from_numpy(array: NDArray[Any]) -> Tensor:
    """Converts an array to (1, 3, H, W) float32 in [0, 1].

    Args:
        array: (H, W, 3) or (H, W); uint8 or uint16 (full range), or float in [0, 1].

    Raises:
        ValueError: another shape, data type or range.
    """
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
    """Converts (1, 3, H, W) or (3, H, W) float in [0, 1] to (H, W, 3) uint8: clamped, halves rounded up.

    Raises:
        ImageError: another shape or data type, or values that are not finite.
    """
    if image.shape[:-2] not in ((3,), (1, 3)) or image.numel() == 0:
        raise ImageError(f"image is {tuple(image.shape)}; one picture, (1, 3, H, W) or (3, H, W), is needed.")
    return _to_bytes(image)


def _to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Converts (1, C, H, W) or (C, H, W) float in [0, 1] to (H, W, C) uint8."""
    if not image.is_floating_point():
        raise ImageError(f"image is {image.dtype}; a floating-point tensor in [0, 1] is needed. Divide by 255.")
    values = image.detach().to("cpu", torch.float32).reshape(image.shape[-3:])
    if not bool(values.isfinite().all()):
        raise ImageError("image holds NaN or infinity; finite values in [0, 1] are needed. Compute it in float32.")
    rounded = (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return np.ascontiguousarray(rearrange(rounded, "c h w -> h w c").numpy())


def _upright(picture: Image.Image) -> Image.Image:
    """The picture turned upright by its EXIF orientation.

    Differs from ImageOps.exif_transpose: EXIF is not written back, which fails on invalid tags.
    """
    picture.load()  # Pillow turns a TIFF while loading it, and the EXIF of a PNG may follow its pixels
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except _CODEC_ERRORS as error:
        logger.warning("unreadable EXIF ignored: %s", error_reason(error))
        return picture
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _split_alpha(picture: Image.Image) -> tuple[Image.Image, Tensor | None]:
    """The straight (not premultiplied) colour, and the opacity as (1, 1, H, W) or None if the picture has none."""
    if not picture.has_transparency_data:
        return picture, None
    if picture.mode[0] in _DEEP:  # a 16-bit PNG declares one grey value transparent
        return picture, _channels(Image.fromarray(np.asarray(picture) != picture.info["transparency"]).convert("L"))
    grey_or_rgb = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    straight = picture.convert(grey_or_rgb + "A")
    return straight.convert(grey_or_rgb), _channels(straight.getchannel("A"))


def _srgb(colour: Image.Image) -> Tensor:
    """Converts an image without alpha to (1, 3, H, W) in sRGB, by its embedded profile or else as Pillow does."""
    profile = colour.info.get("icc_profile")
    if colour.mode[0] in _DEEP:
        grey = _deep_grey(colour)
        if not profile:
            return repeat(grey, "1 1 h w -> 1 3 h w").contiguous()
        colour = Image.fromarray(_to_bytes(grey)[..., 0])  # Pillow's colour management needs 8 bits
    elif colour.mode not in ("L", "RGB", "CMYK"):
        colour = colour.convert("L" if colour.mode == "1" else "RGB")
    if profile:
        colour = _apply_profile(colour, profile)
    return _channels(colour.convert("RGB"))


def _apply_profile(colour: Image.Image, profile: bytes) -> Image.Image:
    """Converts L, RGB or CMYK to sRGB: relative colorimetric with black point compensation, as photo editors do.

    A profile that is damaged or belongs to another colour space is ignored, with a warning in the log.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if colour.mode == "L" and space == "RGB":
            colour = colour.convert("RGB")
        if space.replace("GRAY", "L") != colour.mode:
            raise ValueError(f"the profile is for {space}, the picture is {colour.mode}")
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(colour, source, srgb, intent, "RGB", flags=flags) or colour
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        logger.warning("embedded colour profile ignored: %s", error_reason(error))
        return colour


def _deep_grey(picture: Image.Image) -> Tensor:
    """Converts 16-bit, 32-bit or float grey to (1, 1, H, W) in [0, 1].

    White is 65535; in float files it is the smallest of 1, 255 and 65535 that is not exceeded. If a value is above
    65535, the largest value is white. NaN and infinity, which mark missing data in float files, become black.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), posinf=0, neginf=0)
    peak = float(values.max())
    whites = (1.0, 255.0, 65535.0) if picture.mode == "F" else (65535.0,)
    white = next((white for white in whites if peak <= white), peak)
    return rearrange(torch.from_numpy(values / white).clamp(0, 1), "h w -> 1 1 h w")


def _channels(picture: Image.Image) -> Tensor:
    """Converts an L or RGB image to (1, 1 or 3, H, W) in [0, 1]."""
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return rearrange(torch.from_numpy(array), "h w c -> 1 c h w").contiguous().float() / 255


def save_image(image: Tensor, path: StrPath, *, alpha: Tensor | None = None, quality: int = 95) -> None:
    """Writes one picture with 8 bits per channel in the format of the suffix; the file is complete or not there.

    Args:
        image: (1, 3, H, W) or (3, H, W) float in [0, 1]; values outside are clamped.
        path: ends in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp.
        alpha: (1, 1, H, W) float in [0, 1], where 1 is opaque; ignored for JPEG and BMP, which have no alpha.
        quality: 1 to 100, for JPEG (with colour at full resolution, 4:4:4) and WebP.

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
    options: dict[str, Any] = {
        "quality": quality,
        "subsampling": 0,
    }  # PNG, WebP and BMP ignore options that they do not have
    encoded = BytesIO()  # in memory first, so that an error below is about the disk and not about the encoder
    try:
        Image.fromarray(pixels).save(encoded, name, **({"compression": "tiff_deflate"} if name == "TIFF" else options))
    except _CODEC_ERRORS as error:
        raise ImageError(
            f"{path}: {name} cannot hold {width}x{height} pixels ({error_reason(error)}). Use .png."
        ) from error
    with atomic_path(path, ImageOutputError) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def output_format(path: StrPath) -> str:
    """Pillow's name of the format `save_image` writes there; what would fail later (suffix, folder) is an error now."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITE_FORMATS:
        raise ImageError(f"{path} ends in {suffix!r}; one of {', '.join(WRITE_FORMATS)} is needed. Rename the output.")
    check_output_path(path, ImageOutputError)
    return WRITE_FORMATS[suffix]
