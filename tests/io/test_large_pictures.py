"""Large pictures: converted in bands of rows, which changes no value, and read up to the limit whatever Pillow's is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

from adaattn_core.errors import ImageError
from adaattn_core.io import images
from adaattn_core.io.images import load_alpha, load_image, load_mask
from tests.fuzz import seeds


@pytest.mark.parametrize("read", [load_image, load_mask, load_alpha])
def test_bands_give_the_values_of_the_whole(
    read: Callable[[Path], Tensor | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every format and mode, turned by EXIF and with a colour profile or not."""
    for index, data in enumerate(seeds.pictures()):
        path = tmp_path / f"{index}.png"
        path.write_bytes(data)
        monkeypatch.setattr(images, "BAND_PIXELS", 10**6)
        whole = read(path)
        monkeypatch.setattr(images, "BAND_PIXELS", 7 * seeds.SIDE)
        banded = read(path)
        assert (whole is None) == (banded is None)
        if whole is not None and banded is not None:
            assert torch.equal(whole, banded), f"picture {index}: {data[:40]!r}"


def test_a_remark_is_made_once_for_all_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    monkeypatch.setattr(images, "BAND_PIXELS", 100)
    images.from_pil(Image.new("RGB", (20, 40)))
    picture = Image.new("RGB", (20, 40))
    picture.info["icc_profile"] = profile
    images.from_pil(picture)
    assert len(caplog.records) == 1 and "embedded colour profile ignored" in caplog.text


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("limit", [600, 200])
def test_pillows_own_limit_does_not_count(
    tmp_path: Path, kind: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow warns above its limit and raises above twice of it, in some formats only while it loads the pixels."""
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(path, kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(path).shape == (1, 3, 32, 32)
        load_mask(path)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_lab_tiff_is_a_mask(tmp_path: Path) -> None:
    data = next(data for data in seeds.pictures() if Image.open(BytesIO(data)).mode == "LAB")
    (tmp_path / "a.tif").write_bytes(data)
    assert load_mask(tmp_path / "a.tif").shape == (1, 1, seeds.SIDE, seeds.SIDE)


def test_a_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    Image.new("1", (40_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"bomb\.png is 40000x10000 pixels; at most 268 million pixels are read\."):
        load_image(tmp_path / "bomb.png")
