"""Written pictures: formats, alpha, errors, and complete files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from adaattn_core.errors import ImageError, ImageOutputError
from adaattn_core.io.images import (
    from_numpy,
    load_alpha,
    load_image,
    output_format,
    save_image,
    to_numpy,
)


def noise(height: int = 16, width: int = 20) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".webp"])
def test_saved_pictures_come_back(tmp_path: Path, suffix: str) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 80), indexing="ij")
    pixels = from_numpy(to_numpy(torch.stack([rows, columns, rows * columns])))
    save_image(pixels, tmp_path / f"a{suffix}")
    difference = (load_image(tmp_path / f"a{suffix}") - pixels).abs()
    is_lossy = suffix in (".jpg", ".jpeg", ".webp")
    # Two levels: JPEG and WebP round YCbCr and its frequencies, of which a ramp has few. The others lose nothing.
    assert difference.mean() <= (2 / 255 if is_lossy else 0), f"mean {difference.mean() * 255:.2f} levels"
    assert load_alpha(tmp_path / f"a{suffix}") is None
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    with Image.open(tmp_path / f"a{suffix}") as picture:
        assert picture.format == output_format(tmp_path / f"b{suffix}")


def test_jpeg_keeps_full_color_resolution_and_obeys_quality(tmp_path: Path) -> None:
    """Alternating red and blue columns survive 4:4:4; with halved colour all would be purple."""
    stripes = torch.tensor([[1.0, 0], [0, 0], [0, 1.0]]).repeat(1, 10)[None, :, None].expand(1, 3, 16, 20)
    save_image(stripes, tmp_path / "a.jpg")
    assert (load_image(tmp_path / "a.jpg") - stripes).abs().mean() < 0.05
    save_image(noise(), tmp_path / "good.jpg")
    save_image(noise(), tmp_path / "poor.jpg", quality=10)
    assert (tmp_path / "poor.jpg").stat().st_size < (tmp_path / "good.jpg").stat().st_size / 2


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg", "bmp"])
def test_alpha_is_written_where_the_format_has_one(tmp_path: Path, suffix: str) -> None:
    alpha = torch.zeros(1, 1, 16, 20)
    alpha[..., 10:] = 0.2
    save_image(noise(), tmp_path / f"a.{suffix}", alpha=alpha)
    loaded = load_alpha(tmp_path / f"a.{suffix}")
    if suffix in ("jpg", "bmp"):
        assert loaded is None
    else:
        assert loaded is not None
        torch.testing.assert_close(loaded, alpha)


def test_an_existing_file_is_replaced_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("old")
    (tmp_path / "link.png").symlink_to("a.png")
    save_image(noise(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert load_image(tmp_path / "a.png").shape == (1, 3, 16, 20)


def save_error(path: Path, image: Tensor | None = None, error_type: type[ImageError] = ImageError) -> str:
    with pytest.raises(error_type) as caught:
        save_image(noise() if image is None else image, path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path.parent), "DIR")


def test_writing_errors(tmp_path: Path) -> None:
    known = ".png, .jpg, .jpeg, .webp, .tif, .tiff, .bmp"
    assert save_error(tmp_path / "a.xyz") == f"DIR/a.xyz ends in '.xyz'; one of {known} is needed. Rename the output."
    assert save_error(tmp_path / "a") == f"DIR/a has no suffix; one of {known} is needed. Rename the output."
    assert save_error(tmp_path / "none" / "a.png", error_type=ImageOutputError) == (
        "DIR is not a folder, so DIR/a.png cannot be written. Create the folder first."
    )
    (tmp_path / "folder.png").mkdir()
    assert save_error(tmp_path / "folder.png", error_type=ImageOutputError) == (
        "DIR/folder.png is not a file, so it cannot be overwritten. Name a file."
    )
    (tmp_path / "folder.png").rmdir()
    message = save_error(tmp_path / "a.webp", torch.zeros(3, 1, 16384))  # in brackets come the encoder's words
    assert message.startswith("DIR/a.webp: WEBP cannot hold 16384x1 pixels (encoding error 5")
    assert message.endswith("). Use .png.")
    with pytest.raises(ImageError) as caught:
        save_image(noise(), tmp_path / "a.png", alpha=torch.ones(1, 1, 20, 16))
    assert str(caught.value) == (
        "alpha is 1 picture of 16x20 pixels with 1 channel; 1 picture of 20x16 pixels with 1 channel is needed. "
        "Resize it first."
    )
    with pytest.raises(ValueError) as quality_error:
        save_image(noise(), tmp_path / "a.jpg", quality=0)
    assert str(quality_error.value) == "quality is 0; 1 to 100 is needed."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk full while writing DIR/a.png. Free some space or choose another disk."),
        (errno.EDQUOT, "disk full while writing DIR/a.png. Free some space or choose another disk."),
        (errno.EACCES, "DIR/a.png cannot be written: Permission denied. Choose another folder."),
        (errno.EROFS, "DIR/a.png cannot be written: Read-only file system. Choose another folder."),
    ],
)
@pytest.mark.parametrize("moment", ["write", "rename"])
def test_a_failing_disk_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, moment: str
) -> None:
    (tmp_path / "a.png").write_text("old")

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(bytes(data)[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    def rename(source: Path, _: Path) -> None:
        raise OSError(code, os.strerror(code), str(source))

    if moment == "write":
        monkeypatch.setattr(Path, "write_bytes", write_half)
    else:
        monkeypatch.setattr(os, "replace", rename)
    assert save_error(tmp_path / "a.png", error_type=ImageOutputError) == message
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "old"
