"""The built-in model as it ships: what its pictures must have, whatever run it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, load_image, load_model, stylize
from adaattn_core.ops.resize import resize_image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def model() -> StyleTransferModel:
    return load_model("compact")


def example(name: str) -> Tensor:
    return resize_image(load_image(EXAMPLES / name), short_side=128)


@pytest.mark.parametrize("level", ["relu3_1", "relu4_1", "relu5_1"])
def test_every_level_has_a_part_in_the_picture(level: str, model: StyleTransferModel) -> None:
    content, style = example("coffee.jpg"), example("great_wave.jpg")
    size = (content.shape[-2], content.shape[-1])
    with torch.no_grad():
        features, painted = model.encoder(content), model.fusion.encode_style(model.encoder(style))
        statistics = model.fusion.statistics(features, [painted], [1.0])
        whole = model.decode(model.fusion.merge(model.fusion.apply_statistics(features, statistics)), size)
        mean, std = statistics[level]
        statistics[level] = mean.flip(1), std.flip(1)  # those of other channels
        other = model.decode(model.fusion.merge(model.fusion.apply_statistics(features, statistics)), size)
    assert float((whole - other).abs().mean()) > 0.25 / 255  # a level that died gives 0 exactly; relu5_1 has least


def test_the_result_has_the_styles_colours_and_not_the_contents(model: StyleTransferModel) -> None:
    content = example("coffee.jpg")
    for name in ("great_wave.jpg", "poppies.jpg", "composition_viii.jpg"):
        style = example(name)
        result = stylize(model, content, style)
        own, wanted, found = (x.mean(dim=(0, 2, 3)) for x in (content, style, result))
        assert float((found - wanted).norm()) < 0.5 * float((own - wanted).norm()), name
