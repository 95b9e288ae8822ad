"""Masks in picture files: grey values, opacity, and numbers that are no grey values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaattn_core.io.images import load_mask
from tests.helpers.pixels import SIZE
from tests.helpers.tiny_tiffs import REPORTS


def test_mask_is_the_grey_value(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[[[0.0, pytest.approx(0.2), 1.0]]]]
    Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(tmp_path / "m16.png")
    assert load_mask(tmp_path / "m16.png").tolist() == [[[[0.0, pytest.approx(0.2), 1.0]]]]
    Image.new("RGB", SIZE, (255, 255, 255)).save(tmp_path / "white.png")
    assert load_mask(tmp_path / "white.png").eq(1).all()  # exactly: a mask of 1 must not leak the content


@pytest.mark.parametrize("ink", [0, 255])
def test_mask_of_a_shape_on_a_transparent_ground_is_its_alpha(tmp_path: Path, ink: int) -> None:
    """Whatever the ink, and whatever is hidden under the transparent part."""
    pixels = np.array([[[ink] * 3 + [255], [77, 77, 77, 0], [ink] * 3 + [51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[[[1.0, 0.0, pytest.approx(0.2)]]]]


def test_mask_with_grey_and_alpha_is_their_product(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 255], [51, 255], [255, 102], [255, 0]]], np.uint8), "LA").save(tmp_path / "m.png")
    expected = torch.tensor([[[[1, 0.2, 0.4, 0]]]])
    torch.testing.assert_close(load_mask(tmp_path / "m.png"), expected)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([[0, 1]], np.uint8), "this mask holds the numbers 0 and 1; 1 counts as white"),
        (np.array([[0, 1]], np.uint16), "this mask holds the numbers 0 and 1; 1 counts as white"),
        (np.array([[0, 1]], np.int32), "this mask holds the numbers 0 and 1; 1 counts as white"),
        (np.array([[[0] * 3, [1] * 3]], np.uint8), "this mask holds the numbers 0 and 1; 1 counts as white"),
        (np.array([[0, 255]], np.uint16), "this mask of 16 bits has no value above 255; 255 counts as white"),
        (np.array([[False, True]]), ""),
        (np.array([[0, 1]], np.float32), ""),
        (np.array([[0, 255]], np.uint8), ""),
    ],
)
def test_a_mask_of_small_numbers_is_a_mask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, values: np.ndarray[tuple[int, ...], np.dtype[Any]], text: str
) -> None:
    path = tmp_path / ("m.tif" if values.dtype.itemsize == 4 else "m.png")
    Image.fromarray(values).save(path)
    assert load_mask(path).tolist() == [[[[0.0, 1.0]]]]
    assert [record.message for record in caplog.records] == ([f"{path}: {text}"] if text else [])


def test_the_reported_mask_of_0_and_1_is_the_one_of_0_and_255() -> None:
    assert load_mask(REPORTS / "mask01.png").equal(load_mask(REPORTS / "mask255.png"))


def test_a_mask_that_is_almost_black_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Labels of three regions, for example. A mask that is black everywhere, or a soft one, is left as it is."""
    for name, values in (("labels", [0, 1, 2]), ("black", [0, 0, 0]), ("soft", [0, 40, 90])):
        Image.fromarray(np.array([values], np.uint8)).save(tmp_path / f"{name}.png")
        expected = torch.tensor(values).view(1, 1, 1, 3) / 255
        torch.testing.assert_close(load_mask(tmp_path / f"{name}.png"), expected)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'labels.png'}: this mask is almost black (at most 0.0078 of white), so it hardly has an effect"
    ]
