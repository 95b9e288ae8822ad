"""Picture files, PIL images and numpy arrays to (B, 3, H, W) float32 tensors in [0, 1], and back.

Tensors hold gamma-encoded sRGB values, as files store them. Sizes are (height, width); PIL's (width, height) is used
in this module only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from PIL.Image import Transpose
from torch import Tensor

from ..errors import ImageError, ImageOutputError
from ..ops.layout import pictures_in_words, range_problem, value_range
from ..ops.resize import MIN_SIDE
from ..runtime.remarks import collected_remarks, remark
from .decoding import CODEC_ERRORS, decode, quiet_decoders
from .files import StrPath, atomic_path, check_output_path, error_reason, is_stream, wrong_suffix
from .formats import ALPHA_FORMATS, WRITE_FORMATS
from .tiff import unit_grey

# EXIF orientation -> the operation that turns the picture upright.
_UPRIGHT = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # fmt: skip
INTEGER_WHITES = (127, 255, 4095, 32767, 65535)
"""Largest numbers of the sample types of picture files."""
DARKEST_MASK = 8 / 255
"""A mask that is nowhere brighter looks black and is probably none: labels, for example."""
BAND_PIXELS = 4 * 1024 * 1024
"""Pixels that are converted at a time."""
_DEEP = "IF"  # first letters of the grey modes with more than 8 bits: I, I;16, I;16B, F


def load_image(path: StrPath) -> Tensor:
    """Reads the first frame of a picture file: upright, converted to sRGB, transparent parts over white.

    Returns:
        (1, 3, H, W) float32 in [0, 1].

    Raises:
        ImageError: the file does not exist, is not a picture, or is damaged or cut short; or the picture has a side
            under 16 pixels or more than MAX_PIXELS pixels.
    """
    return _over_white_in_place(*load_color_and_alpha(path))


def load_over_white(path: StrPath) -> Tensor:
    """`load_image`, with a remark in the log if the picture has transparent parts."""
    color, alpha = load_color_and_alpha(path)
    if alpha is not None:
        remark(str(path), "its transparent parts count as white")
    return _over_white_in_place(color, alpha)


def load_color_and_alpha(path: StrPath) -> tuple[Tensor, Tensor | None]:
    """As `load_image`, with the colours as they are under the opacity, and the opacity as `load_alpha` gives it."""
    picture = decode(path)
    if min(picture.size) < MIN_SIDE:
        size, needed = f"{picture.width}x{picture.height}", f"at least {MIN_SIDE}x{MIN_SIDE} are needed"
        raise ImageError(f"{path} is {size} pixels; {needed}. Resize the picture first.")
    picture = _upright(picture, str(path))  # the turned one alone is kept
    return _color_and_alpha(picture, str(path))


def load_alpha(path: StrPath) -> Tensor | None:
    """Reads the opacity of a picture file, upright.

    Returns:
        (1, 1, H, W) float32 in [0, 1], where 1 is opaque; None if the picture is opaque everywhere.
    """
    return _unless_opaque(_split_alpha(_upright(decode(path), str(path)))[1])


def _unless_opaque(alpha: Tensor | None) -> Tensor | None:
    return None if alpha is None or bool((alpha == 1).all()) else alpha


def load_mask(path: StrPath) -> Tensor:
    """Reads a mask from a picture file of any size; white (1) means "apply".

    The mask is the grey value times the opacity. Its colour profile is ignored, since a mask is data. If the opacity
    varies and all visible pixels have one grey value (a shape on a transparent background), the opacity is the mask.
    A mask of the numbers 0 and 1, which looks black, is scaled to 0 and white, with a remark in the log.

    Returns:
        (1, 1, H, W) float32 in [0, 1].
    """
    name = str(path)

    def convert(band: Image.Image) -> tuple[Tensor, Tensor | None]:
        colour, alpha = _split_alpha(band)
        if colour.mode == "LAB":  # Pillow converts it to RGB only
            colour = colour.convert("RGB")
        return _deep_grey(colour, name) if colour.mode[0] in _DEEP else _channels(colour.convert("L")), alpha

    grey, alpha = _in_bands(_upright(decode(path), name), convert)
    grey = _visible_mask(grey, name)
    if alpha is None:
        return grey
    darkest, brightest = torch.where(alpha > 0, grey, 2.0).min(), torch.where(alpha > 0, grey, -1.0).max()
    is_shape = bool(alpha.min() < alpha.max()) and bool(darkest == brightest)
    return alpha if is_shape else grey.mul_(alpha)


def _visible_mask(grey: Tensor, name: str) -> Tensor:
    """A mask in [0, 1], scaled where its numbers are 0 and 1 of a larger range, or 0 to 255 in a file of 16 bits.

    A remark says so, and says it too if the mask is so dark that it has hardly any effect.
    """
    peak = float(grey.max())
    if peak > DARKEST_MASK or peak == 0:
        return grey
    if abs(peak * 65535 - 255) < 0.5 and peak < 1 / 255:
        remark(name, "this mask of 16 bits has no value above 255; 255 counts as white")
    elif any(abs(peak * white - 1) < 1e-3 for white in INTEGER_WHITES) and bool(((grey == 0) | (grey == peak)).all()):
        remark(name, "this mask holds the numbers 0 and 1; 1 counts as white")
    else:
        remark(name, f"this mask is almost black (at most {peak:.2g} of white), so it hardly has an effect")
        return grey
    return (grey / peak).clamp(0, 1)


def from_pil(picture: Image.Image, name: str = "") -> Tensor:
    """Converts a PIL image of any mode to (1, 3, H, W) in [0, 1]; EXIF, colour profile and alpha as in `load_image`.

    Args:
        picture: the image.
        name: for remarks in the log; empty takes the name of the file that Pillow knows.
    """
    name = name or str(getattr(picture, "filename", ""))
    return _over_white_in_place(*_color_and_alpha(_upright(picture, name), name))


def _color_and_alpha(picture: Image.Image, name: str) -> tuple[Tensor, Tensor | None]:
    """(1, 3, H, W) in sRGB, and the opacity, (1, 1, H, W), or None if the upright picture is opaque everywhere."""

    def convert(band: Image.Image) -> tuple[Tensor, Tensor | None]:
        colour, alpha = _split_alpha(band)
        return _srgb(colour, name), alpha

    color, alpha = _in_bands(picture, convert)
    return color, _unless_opaque(alpha)


def _in_bands(
    picture: Image.Image, convert: Callable[[Image.Image], tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """What `convert` gives for a picture, computed for BAND_PIXELS at a time: beside the result it needs little memory.

    Values of more than 8 bits are scaled by the largest one, so such a picture is one band.
    """
    width, height = picture.size
    rows = height if picture.mode[0] in _DEEP else max(1, BAND_PIXELS // width)
    if rows >= height:
        return convert(picture)
    whole: list[Tensor | None] = []
    for top in range(0, height, rows):
        with collected_remarks() if top else nullcontext():  # the first band has made them
            parts = convert(picture.crop((0, top, width, min(top + rows, height))))
        whole = whole or [
            None if part is None else torch.empty(1, part.shape[1], height, width, dtype=torch.float32)
            for part in parts
        ]
        for target, part in zip(whole, parts, strict=True):
            if target is not None and part is not None:
                target[..., top : top + rows, :] = part
    color, alpha = whole
    assert color is not None
    return color, alpha


def _over_white_in_place(color: Tensor, alpha: Tensor | None) -> Tensor:
    """The picture as it looks over white, of a tensor that nobody else holds, without another of its size."""
    return color if alpha is None else color.mul_(alpha).add_(1 - alpha)


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
        channels_first = (*array.shape[:-3], array.shape[-1], *array.shape[-3:-1]) if array.ndim > 2 else array.shape
        came = pictures_in_words((1, *channels_first) if array.ndim == 3 else channels_first)
        raise ValueError(f"array is {came}; 1 picture, (H, W, 3) or (H, W), is needed.")
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
        raise ImageError(f"image is {pictures_in_words(image.shape)}; 1 picture with 3 channels is needed.")
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


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """The picture turned upright by its EXIF orientation.

    Differs from ImageOps.exif_transpose: EXIF is not written back, which fails on invalid tags.
    """
    picture.load()  # Pillow turns a TIFF while loading it, and the EXIF of a PNG may follow its pixels
    try:
        with quiet_decoders:
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except CODEC_ERRORS as error:
        remark(name, f"unreadable EXIF ignored: {error_reason(error)}")
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


def _srgb(colour: Image.Image, name: str) -> Tensor:
    """Converts an image without alpha to (1, 3, H, W) in sRGB, by its embedded profile or else as Pillow does."""
    profile = colour.info.get("icc_profile")
    if colour.mode[0] in _DEEP:
        grey = _deep_grey(colour, name)
        if not profile:
            return repeat(grey, "1 1 h w -> 1 3 h w").contiguous()
        colour = Image.fromarray(_to_bytes(grey)[..., 0])  # Pillow's colour management needs 8 bits
    elif colour.mode not in ("L", "RGB", "CMYK"):
        colour = colour.convert("L" if colour.mode == "1" else "RGB")
    if profile:
        colour = _apply_profile(colour, profile, name)
    return _channels(colour.convert("RGB"))


def _apply_profile(colour: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Converts L, RGB or CMYK to sRGB: relative colorimetric with black point compensation, as photo editors do.

    A profile that is damaged or belongs to another colour space is ignored, with a remark in the log.
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
        remark(name, f"embedded colour profile ignored: {error_reason(error)}")
        return colour


def _deep_grey(picture: Image.Image, name: str) -> Tensor:
    """Converts 16-bit, 32-bit or float grey to (1, 1, H, W) in [0, 1]; white as in `tiff.unit_grey`."""
    return rearrange(torch.from_numpy(unit_grey(np.asarray(picture), name)), "h w -> 1 1 h w")


def _channels(picture: Image.Image) -> Tensor:
    """Converts an L or RGB image to (1, 1 or 3, H, W) in [0, 1]."""
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return rearrange(torch.from_numpy(array), "h w c -> 1 c h w").contiguous().float().div_(255)


def save_image(
    image: Tensor,
    path: StrPath,
    *,
    alpha: Tensor | None = None,
    quality: int = 95,
    text: Mapping[str, str] | None = None,
) -> None:
    """Writes one picture with 8 bits per channel in the format of the suffix; the file is complete or not there.

    Args:
        image: (1, 3, H, W) or (3, H, W) float in [0, 1]; values a little outside are clamped.
        path: ends in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp.
        alpha: (1, 1, H, W) float in [0, 1], where 1 is opaque; ignored for JPEG and BMP, which have no alpha.
        quality: 1 to 100, for JPEG (with colour at full resolution, 4:4:4) and WebP.
        text: values by keyword that a PNG file stores; ignored for other formats.

    Raises:
        ImageError: an image or format that cannot be written; an ImageOutputError where the file system refuses.
        ValueError: quality outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; 1 to 100 is needed.")
    name, pixels = output_format(path), to_numpy(image)
    problem = range_problem(*value_range(image))
    if problem:
        raise ImageError(f"image {problem}")
    height, width = pixels.shape[:2]
    if alpha is not None and name in ALPHA_FORMATS:
        if alpha.shape != (1, 1, height, width):
            came, needed = pictures_in_words(alpha.shape), pictures_in_words((1, 1, height, width))
            raise ImageError(f"alpha is {came}; {needed} is needed. Resize it first.")
        pixels = np.concatenate([pixels, _to_bytes(alpha)], axis=2)
    options: dict[str, Any] = {
        "quality": quality,
        "subsampling": 0,
    }  # PNG, WebP and BMP ignore options that they do not have
    if name == "PNG" and text:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for keyword, value in text.items():
            options["pnginfo"].add_text(keyword, value)
    encoded = BytesIO()  # in memory first, so that an error below is about the disk and not about the encoder
    try:
        Image.fromarray(pixels).save(encoded, name, **({"compression": "tiff_deflate"} if name == "TIFF" else options))
    except CODEC_ERRORS as error:
        raise ImageError(
            f"{path}: {name} cannot hold {width}x{height} pixels ({error_reason(error)}). Use .png."
        ) from error
    with atomic_path(path, ImageOutputError) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def output_format(path: StrPath) -> str:
    """Pillow's name of the format `save_image` writes there; what would fail later (suffix, folder) is an error now."""
    suffix = ".png" if is_stream(path) else Path(path).suffix.lower()
    if suffix not in WRITE_FORMATS:
        raise ImageError(wrong_suffix(path, suffix, WRITE_FORMATS))
    check_output_path(path, ImageOutputError)
    return WRITE_FORMATS[suffix]


def holds_alpha(path: StrPath) -> bool:
    """Whether `save_image` can write opacity there."""
    return output_format(path) in ALPHA_FORMATS
