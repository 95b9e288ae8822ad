"""Reading pictures, and converting PIL images and numpy arrays: values worked out by hand, errors with their text."""

from __future__ import annotations

import errno
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import Tensor

from adaattn_core.errors import ImageError
from adaattn_core.io import decoding
from adaattn_core.io.images import (
    from_numpy,
    from_pil,
    load_alpha,
    load_image,
    save_image,
    to_numpy,
    to_pil,
)
from tests.helpers.pixels import SIZE, assert_color

# ---------------------------------------------------------------- modes


MODES: dict[str, tuple[Image.Image, tuple[float, ...]]] = {
    "rgb.png": (Image.new("RGB", SIZE, (255, 51, 0)), (1, 0.2, 0)),
    "grey.png": (Image.new("L", SIZE, 51), (0.2, 0.2, 0.2)),
    "bit.png": (Image.new("1", SIZE, 1), (1, 1, 1)),
    # Over white: 0.2 * 0.4 + 0.6 = 0.68; the red stays 1, black becomes 0.6.
    "rgba.png": (Image.new("RGBA", SIZE, (255, 51, 0, 102)), (1, 0.68, 0.6)),
    "la.png": (Image.new("LA", SIZE, (51, 102)), (0.68, 0.68, 0.68)),
    "cmyk.tif": (Image.new("CMYK", SIZE, (255, 0, 0, 0)), (0, 1, 1)),
    "cmyk.jpg": (Image.new("CMYK", SIZE, (255, 0, 0, 0)), (0, 1, 1)),
    "deep.png": (Image.new("I;16", SIZE, 13107), (0.2, 0.2, 0.2)),
    "deep_big_endian.tif": (Image.new("I;16B", SIZE, 13107), (0.2, 0.2, 0.2)),
    "deep.pgm": (Image.new("I", SIZE, 13107), (0.2, 0.2, 0.2)),
    "dark.tif": (Image.new("I", SIZE, 255), (255 / 65535,) * 3),  # 8-bit values in 32 bits are not stretched
    "beyond.tif": (Image.new("I", SIZE, 70000), (1, 1, 1)),
    "unit.tif": (Image.new("F", SIZE, 0.25), (0.25, 0.25, 0.25)),
    "bytes.tif": (Image.new("F", SIZE, 51.0), (0.2, 0.2, 0.2)),
    "negative.tif": (Image.new("F", SIZE, -3.0), (0, 0, 0)),
    "no_data.tif": (Image.new("F", SIZE, float("nan")), (0, 0, 0)),
    "infinite.tif": (Image.new("F", SIZE, float("inf")), (0, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_load_image_reads_every_mode(tmp_path: Path, name: str) -> None:
    picture, expected = MODES[name]
    picture.save(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.shape == (1, 3, 16, 20) and image.dtype == torch.float32 and image.is_contiguous()
    # JPEG rounds in YCbCr: 2/255.
    assert_color(image, expected, atol=2 / 255 if name.endswith("jpg") else 1e-6)


def test_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    """(102, 51, 0) at opacity 102 is the colour (255, 127.5, 0) at 0.4; over white (1, 0.8, 0.6)."""
    assert_color(from_pil(Image.new("RGBa", SIZE, (102, 51, 0, 102))), (1, 0.8, 0.6), atol=0.5 / 255)
    Image.new("RGBA", SIZE, (102, 51, 0, 102)).save(tmp_path / "a.tif")
    straight, associated = (struct.pack("<HHIH", 338, 3, 1, kind) for kind in (2, 1))  # TIFF 6.0, ExtraSamples
    data = (tmp_path / "a.tif").read_bytes()
    assert data.count(straight) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(straight, associated))
    assert_color(load_image(tmp_path / "a.tif"), (1, 0.8, 0.6), atol=0.5 / 255)


def test_16_bit_rgb_keeps_its_high_byte(tmp_path: Path) -> None:
    """A 16-bit RGB PPM of 0x8000 is 128/255, as Pillow, which has no 16-bit RGB, reads it."""
    (tmp_path / "deep.ppm").write_bytes(b"P6 20 16 65535\n" + b"\x80\x00" * (20 * 16 * 3))
    assert_color(load_image(tmp_path / "deep.ppm"), (128 / 255,) * 3)


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (1, (0, 1, 1)),  # entry 1 wholly transparent: white; entry 0, cyan, as it is
        (b"\xff\x66", (0, 1, 1)),  # entry 1 at 0.4
    ],
)
def test_palette_transparency(tmp_path: Path, transparency: int | bytes, expected: tuple[float, float, float]) -> None:
    picture = Image.new("P", SIZE, 0)
    picture.putpalette([0, 255, 255, 255, 51, 0])
    picture.paste(1, (10, 0, 20, 16))
    picture.save(tmp_path / "p.png", transparency=transparency)
    image, alpha = load_image(tmp_path / "p.png"), load_alpha(tmp_path / "p.png")
    assert_color(image[..., :10], expected)
    assert_color(image[..., 10:], (1, 1, 1) if transparency == 1 else (1, 0.68, 0.6))
    assert alpha is not None
    assert alpha[..., :10].eq(1).all()
    torch.testing.assert_close(alpha[..., 10:], torch.full((1, 1, 16, 10), 0.0 if transparency == 1 else 0.4))


@pytest.mark.parametrize(("mode", "key"), [("1", 0), ("L", 0), ("RGB", (0, 0, 0)), ("I;16", 0)])
def test_a_png_transparent_color_is_transparent(tmp_path: Path, mode: str, key: int | tuple[int, ...]) -> None:
    picture = Image.new(mode, SIZE, key)
    picture.paste(255 if mode != "RGB" else (255, 255, 255), (10, 0, 20, 16))
    picture.save(tmp_path / "key.png", transparency=key)
    alpha = load_alpha(tmp_path / "key.png")
    assert alpha is not None
    assert alpha[..., :10].eq(0).all() and alpha[..., 10:].eq(1).all()
    assert_color(load_image(tmp_path / "key.png")[..., :10], (1, 1, 1))


def test_load_alpha_is_none_when_opaque(tmp_path: Path) -> None:
    Image.new("RGBA", SIZE, (9, 9, 9, 255)).save(tmp_path / "opaque.png")
    Image.new("RGB", SIZE).save(tmp_path / "rgb.png")
    assert load_alpha(tmp_path / "opaque.png") is None
    assert load_alpha(tmp_path / "rgb.png") is None


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert_color(load_image(tmp_path / name), (1, 0, 0))


def test_a_large_picture_raises_no_warning_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit neither warns nor stops a picture under ours, and is as before afterwards."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 320 pixels are over twice that: Pillow would refuse
    Image.new("RGB", SIZE, "red").save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_color(load_image(tmp_path / "a.png"), (1, 0, 0))
    assert Image.MAX_IMAGE_PIXELS == 100


# ---------------------------------------------------------------- EXIF

# EXIF 2.32, tag 274: what the 0th row and the 0th column of the file are in the upright picture. From it follows by
# hand where the file's first pixel goes and where the last pixel of its first row goes.
CORNERS = {
    1: ("top left", "top right"),
    2: ("top right", "top left"),
    3: ("bottom right", "bottom left"),
    4: ("bottom left", "bottom right"),
    5: ("top left", "bottom left"),
    6: ("top right", "bottom right"),
    7: ("bottom right", "top right"),
    8: ("bottom left", "top left"),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = np.zeros((16, 20, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0], pixels[0, -1] = (255, 0, 0, 254), (0, 255, 0, 254)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, lossless=True)

    image, alpha = load_image(path), load_alpha(path)
    assert image.shape[-2:] == ((16, 20) if orientation < 5 else (20, 16))
    assert alpha is not None and alpha.shape[-2:] == image.shape[-2:]
    for channel, corner in enumerate(CORNERS[orientation]):
        row, column = -int("bottom" in corner), -int("right" in corner)
        assert image[0, channel, row, column] > 0.9, f"{corner} is {image[0, :, row, column].tolist()}"
        assert alpha[0, 0, row, column] < 1


def test_a_pil_image_not_loaded_yet_is_turned_once(tmp_path: Path) -> None:
    """Pillow turns a TIFF itself, but only while it loads."""
    pixels = np.zeros((16, 20, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=exif)
    with Image.open(tmp_path / "a.tif") as picture:
        image = from_pil(picture)
    assert image.shape == (1, 3, 20, 16)
    assert image[..., -1].eq(1).all() and image[..., :-1].eq(0).all()  # the 0th row is the right-hand side


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    Image.new("RGB", SIZE, "red").save(tmp_path / "a.png", exif=b"Exif\x00\x00not a TIFF header")
    assert_color(load_image(tmp_path / "a.png"), (1, 0, 0))


# ---------------------------------------------------------------- reading errors


def error_of(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}{os.sep}", "")


def test_reading_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert error_of(tmp_path / "none.png") == "none.png does not exist. Check its name and folder."
    (tmp_path / "folder.png").mkdir()
    assert error_of(tmp_path / "folder.png") == "folder.png is a folder; a picture file is needed. Name a file in it."
    Image.new("RGB", (12, 9)).save(tmp_path / "content.png")
    assert error_of(tmp_path / "content.png") == (
        "content.png is 12x9 pixels; at least 16x16 are needed. Resize the picture first."
    )
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"  # Pillow would run Ghostscript
    for name, data in (("text.jpg", b"hello"), ("program.png", postscript)):
        (tmp_path / name).write_bytes(data)
        assert error_of(tmp_path / name) == (
            f"{name} is not a picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF). "
            "Convert it to PNG first."
        )
    assert error_of(tmp_path / "nul\0.png").startswith("nul\\x00.png cannot be read: embedded null ")
    Image.new("RGB", SIZE).save(tmp_path / "huge.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 319)
    assert error_of(tmp_path / "huge.png") == (
        "huge.png is 20x16 pixels; at most 0 million pixels are read. Resize it first."
    )


def test_a_file_without_read_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert error_of(tmp_path / "a.png") == ("a.png cannot be read: Permission denied. Check its name and permissions.")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """The header says 100000x100000, 30 GB as RGB; nothing but the header is there."""
    (tmp_path / "bomb.ppm").write_bytes(b"P6 100000 100000 255\n")
    assert error_of(tmp_path / "bomb.ppm") == (
        "bomb.ppm is 100000x100000 pixels; at most 268 million pixels are read. Resize it first."
    )


@pytest.mark.parametrize("tolerant", [False, True], ids=["strict", "tolerant"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "progressive.jpg", "a.webp", "a.tif", "a.bmp", "a.gif", "a.ppm"])
def test_a_cut_file_is_never_read_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tolerant: bool
) -> None:
    """Not even where other software in the process told Pillow to put up with cut files; its setting stays."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    path = tmp_path / name
    Image.fromarray(pixels).save(path, progressive=name.startswith("progressive"))
    data = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        message = error_of(path)
        assert message.startswith(f"{name} is damaged or cut short ("), f"at {share}: {message}"
        assert message.endswith("). Download or export it again.")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


# ---------------------------------------------------------------- numpy and PIL


def test_all_byte_values_come_back() -> None:
    pixels = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    assert (to_numpy(from_numpy(pixels)) == pixels).all()
    assert (np.asarray(to_pil(from_pil(Image.fromarray(pixels)))) == pixels).all()


def test_to_numpy_rounds_halves_up_and_clamps() -> None:
    values = torch.tensor([-1.0, 0.5 / 255, 0.4 / 255, 127.5 / 255, 1.0, 7.0])
    assert to_numpy(values.expand(3, 1, 6))[0, :, 0].tolist() == [0, 1, 0, 128, 255, 255]
    assert to_numpy(torch.full((1, 3, 2, 4), 0.5, dtype=torch.bfloat16)).shape == (2, 4, 3)


def test_from_numpy_kinds() -> None:
    assert from_numpy(np.full((2, 3), 51, np.uint8)).shape == (1, 3, 2, 3)
    for array in (np.full((2, 3), 51, np.uint8), np.full((2, 3, 3), 13107, np.uint16), np.full((2, 3), 0.2)):
        image = from_numpy(array)
        assert_color(image, (0.2, 0.2, 0.2))
        image[0, 0] = 0  # its own memory, not one channel seen three times
        assert image[0, 1, 0, 0] != 0
    assert from_numpy(np.full((2, 3), 1.0005)).max() == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((4, 5, 4)),
            "array is 1 picture of 5x4 pixels with 4 channels; 1 picture, (H, W, 3) or (H, W), is needed.",
        ),
        (
            np.zeros((0, 5)),
            "array is 1 picture of 5x0 pixels without channels and batch; 1 picture, (H, W, 3) or (H, W), is needed.",
        ),
        (np.zeros((4, 5), np.int64), "array is int64; uint8, uint16 or float is needed. Convert it first."),
        (np.full((4, 5), 255.0), "array holds values from 255 to 255; [0, 1] is needed. Scale or clip them."),
        (np.full((4, 5), np.nan), "array holds values from nan to nan; [0, 1] is needed. Scale or clip them."),
    ],
)
def test_from_numpy_errors(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_numpy(array)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(2, 3, 4, 5),
            "image is 2 pictures of 5x4 pixels with 3 channels; 1 picture with 3 channels is needed.",
        ),
        (
            torch.zeros(4, 5, 3),
            "image is 1 picture of 3x5 pixels with 4 channels and no batch; 1 picture with 3 channels is needed.",
        ),
        (
            torch.zeros(3, 0, 5),
            "image is 1 picture of 5x0 pixels with 3 channels and no batch; 1 picture with 3 channels is needed.",
        ),
        (
            torch.zeros(3, 4, 5, dtype=torch.uint8),
            "image is torch.uint8; a floating-point tensor in [0, 1] is needed. Divide by 255.",
        ),
        (
            torch.full((3, 4, 5), float("nan")),
            "image holds NaN or infinity; finite values in [0, 1] are needed. Compute it in float32.",
        ),
        (
            torch.full((3, 4, 5), float("inf")),
            "image holds NaN or infinity; finite values in [0, 1] are needed. Compute it in float32.",
        ),
    ],
)
def test_image_errors(tmp_path: Path, image: Tensor, message: str) -> None:
    for call in (to_numpy, lambda tensor: save_image(tensor, tmp_path / "a.png")):
        with pytest.raises(ImageError) as caught:
            call(image)
        assert str(caught.value) == message
    assert not list(tmp_path.iterdir())
