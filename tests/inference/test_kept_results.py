"""What `stylize` keeps on a shelf: other strengths, masks and colours give what they give without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from adaattn_core import StyleTransferModel, stylize
from adaattn_core.runtime.kept import Kept, Shelf
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import picture
from tests.helpers.stylize_pictures import STYLE, left_half

CONTENT = picture(128, 192, seed=3)
TWO_PASSES = 8.0
MEGABYTE = 2**20
CHOICES: list[dict[str, Any]] = [
    {"strength": 0.8}, {"strength": 0.3}, {"strength": 1.0}, {"strength": 0.0}, {"strength": 0.8, "keep_color": True},
    {"strength": 0.8, "content_mask": left_half(128, 192)},
]  # fmt: skip


@pytest.mark.parametrize("stroke_size", [0, TWO_PASSES])
@pytest.mark.parametrize("limit", [100 * MEGABYTE, MEGABYTE // 2], ids=["all is kept", "little is kept"])
def test_a_shelf_changes_no_picture(model: StyleTransferModel, stroke_size: float, limit: int) -> None:
    kept = Kept(limit)
    for choice in CHOICES:
        wanted = stylize(model, CONTENT, STYLE, stroke_size=stroke_size, **choice)
        assert_same(stylize(model, CONTENT, STYLE, stroke_size=stroke_size, shelf=Shelf(kept), **choice), wanted)
    assert 0 < kept.bytes <= limit


@pytest.mark.parametrize("stroke_size", [0, TWO_PASSES])
def test_features_go_to_the_device_of_the_model_and_pixels_stay(model: StyleTransferModel, stroke_size: float) -> None:
    """A content on the CPU is painted by a model on an accelerator: pixels there could not be compared with it."""
    moved: list[torch.Tensor] = []

    def to_accelerator(value: Any) -> Any:  # noqa: ANN401 (nested tuples of tensors)
        moved.extend(leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
        return value

    shelf = Shelf(Kept(100 * MEGABYTE), fetch=to_accelerator)
    for choice in CHOICES:
        stylize(model, CONTENT, STYLE, stroke_size=stroke_size, shelf=shelf, **choice)
    assert moved and not [tuple(one.shape) for one in moved if one.shape[1] == 3]
