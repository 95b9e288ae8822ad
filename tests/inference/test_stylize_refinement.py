"""Refinement as a part of `stylize`: the same result as `refine`, and most of the progress."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from adaattn_core import StyleTransferModel, refine, stylize
from adaattn_core.models.encoder import VGGEncoder
from tests.helpers.comparison import assert_same, difference
from tests.helpers.small_models import picture, small_model
from tests.helpers.stylize_pictures import OTHER, STYLE

stylize_module = sys.modules["adaattn_core.inference.stylize"]


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> VGGEncoder:
    """VGG-19's shape with a few channels, in the place of the built-in one."""
    network = small_model(5).encoder

    def load(*, normalized: bool) -> VGGEncoder:
        assert normalized
        return network

    monkeypatch.setattr(stylize_module, "load_vgg", load)
    return network


def test_refine_steps_refine_the_result_with_the_same_options(
    model: StyleTransferModel, small_vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs together: contents, masks and styles of a batch stay paired."""
    content, styles = picture(37, 50, batch=2, seed=3), [picture(45, 34, batch=2, seed=1), OTHER]
    mask, style_mask = torch.rand(2, 1, 37, 50, generator=torch.manual_seed(1)).round(), torch.ones(45, 34)
    options: dict[str, Any] = {
        "style_weights": [3, 1], "strength": 0.8, "temperature": 2.0, "content_mask": mask,
        "style_masks": [style_mask, None], "keep_color": True,
    }  # fmt: skip
    first = stylize(model, content, styles, **options)
    expected = refine(first, content, styles, steps=3, vgg=small_vgg, **options)
    assert difference(expected, first) > 0.5
    assert_same(stylize(model, content, styles, refine_steps=3, **options), expected)
    monkeypatch.setattr(sys.modules["adaattn_core.inference.batching"], "BATCH_PIXELS", 1)
    finished = torch.zeros_like(content)
    stylize(model, content, styles, refine_steps=3, on_result=finished.__setitem__, **options)
    assert_same(finished, expected)


def test_refinement_has_most_of_the_progress(model: StyleTransferModel, small_vgg: VGGEncoder) -> None:
    shares: list[float] = []
    stylize(model, picture(32, 32, batch=2), STYLE, refine_steps=4, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    assert sum(share > 0.05 for share in shares) > 8 * len(small_vgg.layers)
    assert max(after - before for before, after in zip(shares, shares[1:], strict=False)) < 0.3
