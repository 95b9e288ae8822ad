"""Which content is painted in which style, by the numbers in their batches."""

from __future__ import annotations

import re

import pytest
import torch

from tests.helpers.comfy_pack import pack_module

pairs = pack_module("nodes.pairs")


@pytest.mark.parametrize(
    ("contents", "styles", "every", "wanted"),
    [
        (1, [1], False, "00"),
        (3, [1], False, "00 10 20"),
        (1, [3], False, "00 01 02"),
        (2, [2], False, "00 11"),
        (1, [1, 3], False, "00 01 02"),
        (2, [3], True, "00 01 02 10 11 12"),
        (2, [1], True, "00 10"),
        (1, [2], True, "00 01"),
    ],
)
def test_pairs_of_contents_and_styles(contents: int, styles: list[int], every: bool, wanted: str) -> None:
    found = pairs.pair_up(contents, styles, every)
    assert [f"{content}{style}" for content, style in zip(*found, strict=True)] == wanted.split()


@pytest.mark.parametrize(
    ("contents", "styles", "text"),
    [
        (3, [2], "the style has 2 pictures and the content 3; give 1 style, or 3, or switch every style on, which "
         "paints each content in each style"),
        (1, [2, 3], "one style has 2 pictures and another 3; styles that are mixed need 1 picture, or equally many"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_pair_up(contents: int, styles: list[int], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        pairs.pair_up(contents, styles)


def test_results_of_one_content_are_computed_together() -> None:
    assert pairs.pair_up(2, [3], True).groups() == [slice(0, 3), slice(3, 6)]
    assert pairs.pair_up(4, [1]).groups() == [slice(0, 4)]
    assert pairs.pair_up(4, [4]).groups() == [slice(0, 4)]


def test_a_mask_follows_its_content() -> None:
    masks = torch.arange(2.0).reshape(2, 1, 1)
    assert pairs.repeat_masks(masks, 2, [0, 0, 1, 1]).flatten().tolist() == [0, 0, 1, 1]
    for mask in (None, torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.zeros(3, 4, 4)):
        assert pairs.repeat_masks(mask, 2, [0, 0, 1, 1]) is mask
