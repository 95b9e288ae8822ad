"""Models with something left out: what is left is what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adaattn_core.evaluation.methods import attending_at
from adaattn_core.inference.stylize import stylize
from adaattn_core.models.config import COMPACT
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

CONTENT, STYLE = picture(48, 64, seed=1), picture(40, 56, seed=2)


def painted(model: StyleTransferModel, levels: tuple[str, ...], **options: float) -> Tensor:
    return stylize(attending_at(model, levels), CONTENT, STYLE, **options)  # type: ignore[arg-type]


def test_all_levels_are_the_model_itself() -> None:
    model = small_model()
    assert torch.equal(painted(model, SMALL.levels), stylize(model, CONTENT, STYLE))


def test_no_level_is_adain() -> None:
    """At an endless temperature every style position counts alike, too."""
    model = small_model()
    torch.testing.assert_close(painted(model, ()), painted(model, SMALL.levels, temperature=1e9), rtol=0, atol=1e-4)
    assert float((painted(model, ()) - stylize(model, CONTENT, STYLE)).abs().max()) > 1e-2


def test_statistics_of_a_level_left_out_are_the_styles() -> None:
    model = attending_at(small_model(), ["relu3_1"])
    content, style = model.encode(CONTENT), model.encode(STYLE)
    levels = model.fusion.encode_style(style)
    found = model.fusion.statistics(content, [levels], [1.0])
    for level in ("relu4_1", "relu5_1"):
        value = levels[level].value
        mean, std = value.mean(dim=1)[..., None, None], value.std(dim=1, correction=0)[..., None, None]
        torch.testing.assert_close(found[level][0], mean.expand_as(found[level][0]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[level][1], std.expand_as(found[level][1]), rtol=1e-3, atol=1e-4)
    assert float(found["relu3_1"][0].std(dim=(2, 3)).max()) > 1e-3, "relu3_1 still looks where it looked"


def test_the_model_is_not_changed() -> None:
    model = small_model()
    before = stylize(model, CONTENT, STYLE)
    attending_at(model, ())
    assert torch.equal(stylize(model, CONTENT, STYLE), before)


def test_a_video_model_and_one_with_cells_can_do_without() -> None:
    for config in (SMALL_VIDEO, COMPACT):
        model = small_model(config=config)
        found = painted(model, ())
        assert bool(found.isfinite().all())
        assert float((found - stylize(model, CONTENT, STYLE)).abs().max()) > 1e-4


def test_a_level_without_attention_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        attending_at(small_model(), ["relu2_1"])
    assert str(caught.value) == "levels has 'relu2_1'; this model attends at relu3_1, relu4_1, relu5_1 (or none)"
