"""Batches of contents and styles in `stylize`: pairing, chunks, and results that are handed over batch by batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, stylize
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import picture
from tests.helpers.stylize_pictures import STYLE, left_half


@pytest.mark.parametrize("chunk_pixels", [1, 2 * 37 * 50, 2**21])
def test_batches_pair_up_whatever_runs_together(
    model: StyleTransferModel, chunk_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.inference.batching.BATCH_PIXELS", chunk_pixels)
    content, style, mask = picture(37, 50, batch=3), picture(45, 34, batch=3, seed=1), left_half(45, 34)
    paired = stylize(model, content, style, style_masks=[mask])
    shared = stylize(model, content, [style[:1], style[1:2]])
    mixed = stylize(model, content, [style, STYLE])
    assert paired.shape == content.shape
    for index in range(3):
        item = slice(index, index + 1)
        assert_same(paired[item], stylize(model, content[item], style[item], style_masks=[mask]))
        assert_same(shared[item], stylize(model, content[item], [style[:1], style[1:2]]))
        assert_same(mixed[item], stylize(model, content[item], [style[item], STYLE]))


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_finished_results_are_handed_over_batch_by_batch(
    model: StyleTransferModel, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.inference.batching.BATCH_PIXELS", 2 * 37 * 50)
    content, calls = picture(37, 50, batch=3), list[tuple[str, float]]()
    wanted, results = stylize(model, content, STYLE, strength=strength), torch.zeros(3, 3, 37, 50)

    def on_result(items: slice, pictures: Tensor) -> None:
        calls.append(("result", items.stop))
        results[items] = pictures
        pictures.zero_()  # they are the callback's own

    returned = stylize(
        model, content, STYLE, strength=strength, on_result=on_result,
        progress=lambda share: calls.append(("progress", share)),
    )  # fmt: skip
    assert returned.shape == (0, 3, 37, 50)
    assert torch.equal(results, wanted)
    assert torch.equal(content, picture(37, 50, batch=3))
    assert [call for call in calls if call[0] == "result"] == [("result", 2), ("result", 3)]
    name, share = calls[calls.index(("result", 2)) + 1]
    assert name == "progress" and share == pytest.approx(2 / 3), "the progress of a batch comes after its result"
    assert calls[-2:] == [("result", 3), ("progress", 1)]
