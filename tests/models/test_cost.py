"""The cost model counts what is computed and what is in memory at once."""

from __future__ import annotations

import pytest
from torch import nn

from adaattn_core.models.config import COMPACT, ModelConfig
from adaattn_core.models.cost import (
    attention_levels,
    content_floats,
    decoder_convolutions,
    encoder_convolutions,
    widest_row,
)
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
GIB = 2**30


@BOTH
def test_layers_are_those_of_the_model(config: ModelConfig) -> None:
    """In the model, the encoder has all five blocks, whatever level is the deepest with attention."""
    model = small_model(config=config)

    def widths(*parts: nn.Module) -> list[tuple[int, int]]:
        layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d)]
        return [(layer.in_channels, layer.out_channels) for layer in layers if layer.kernel_size == (3, 3)]

    encoder = [layer[1:] for layer in encoder_convolutions(config)]
    assert encoder == widths(model.encoder)[: len(encoder)]
    assert encoder_convolutions(config)[-1].block == attention_levels(config)[-1].block
    merge = [model.fusion.merge_conv] if len(config.levels) > 1 else []
    assert [layer[1:] for layer in decoder_convolutions(config)] == widths(*merge, model.decoder)
    for name, level in zip(config.levels, attention_levels(config), strict=True):
        query = model.fusion.level_attention(name).query_proj
        assert (level.key_channels, level.projection_channels) == (query.in_channels, query.out_channels)


def test_the_widest_row_is_the_first_with_the_skip_connection_or_of_the_first_block() -> None:
    assert widest_row(ModelConfig()) == 2 * 256 / 4
    assert widest_row(ModelConfig(levels=("relu3_1",))) == 64
    assert widest_row(SMALL) == 6


def test_what_is_whole_at_once_is_counted() -> None:
    """One level on the relu3_1 grid, a sixteenth of the pixels, and the picture. Attention: 6 + 8 + 10 channels are
    read and painted over; below full strength 10 are painted beside them, and the content's own 10 and picture wait.
    Decoder: 10 fused, 8 on the relu3_1 grid to 6 on relu2_1's; or 6 to 3 of a picture, and that once more. Encoder:
    6 + 8 channels kept, 6 go in on relu2_1's grid, 8 come out."""
    attention, decoder = (6 + 8 + 10) / 16, 10 / 16 + max(8 / 16 + 6 / 4, 6 / 4 + 3 + 3)
    encoder = (6 + 8) / 16 + 6 / 4 + 8 / 16
    assert content_floats(SMALL_VIDEO) == pytest.approx(3 + max(attention, decoder, encoder))
    beside = max(attention + 10 / 16, decoder, encoder)
    assert content_floats(SMALL_VIDEO, strength=0.5) == pytest.approx(3 + 10 / 16 + 3 + beside)


def test_large_pictures_fit_where_they_should() -> None:
    """4K with the full-size model in 8 GiB, 8K with the built-in one: what has to be whole leaves half of it."""
    assert 4 * content_floats(ModelConfig()) * 3840 * 2160 < 4 * GIB
    assert 4 * content_floats(COMPACT) * 7680 * 4320 < 4 * GIB
