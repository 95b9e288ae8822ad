"""ModelConfig: JSON, published sizes, and settings that make no model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from adaattn_core.models.config import COMPACT, ModelConfig
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.small_models import SMALL, SMALL_VIDEO


@pytest.mark.parametrize("config", [ModelConfig(), COMPACT, SMALL, SMALL_VIDEO])
def test_config_round_trip_through_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_published_sizes() -> None:
    """Parameters in millions as counted in the published files: encoder, adaattn_3, transformer, decoder."""
    with torch.device("meta"):
        model = StyleTransferModel(ModelConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    shallow = sum(p.numel() for p in model.fusion.attention["relu3_1"].parameters())
    in_millions = [round(count / 1e6, 2) for count in
                   (counts["encoder"], shallow, counts["fusion"] - shallow, counts["decoder"])]  # fmt: skip
    assert in_millions == [12.94, 0.47, 9.07, 4.10]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"levels": ("relu4_1",)}, r"levels are \('relu4_1',\); known are \('relu3_1', .*\) and \('relu3_1',\)"),
        ({"similarity": "dot"}, "similarity is 'dot'; known are softmax, cosine"),
        ({"upsample": "cubic"}, "upsample is 'cubic'; known are nearest, bilinear"),
        (
            {"projection_channels": (8,)},
            r"projection_channels is \(8,\); 3 whole numbers from 1 to 8192 are needed, .*",
        ),
        ({"projection_channels": (8, 8, 0)}, r"projection_channels is \(8, 8, 0\); 3 whole numbers .*"),
        ({"style_cells": (2**62, 1, 1)}, r"style_cells is \(4611686018427387904, 1, 1\); 3 whole numbers .*"),
        ({"style_cells": (1.5, 1, 1)}, r"style_cells is \(1.5, 1, 1\); 3 whole numbers .*"),
        ({"style_cells": (True, 1, 1)}, r"style_cells is \(True, 1, 1\); 3 whole numbers .*"),
        ({"style_cells": 2}, r"style_cells is 2; 3 whole numbers .*"),
        ({"encoder_convs": (100_000, 1, 1, 1, 1)}, r"encoder_convs is \(100000, .*; 5 whole numbers from 1 to 64 .*"),
        ({"channels": (8, 8, 8, 2**40, 2**40)}, r"channels is .*; 5 whole numbers from 1 to 8192 .*"),
        ({"logit_scale": True}, r"logit_scale is True; above 0 and at most 80.0 is needed"),
        ({"logit_scale": float("nan")}, r"logit_scale is nan; above 0 and at most 80.0 is needed"),
        ({"logit_scale": 0.0}, r"logit_scale is 0.0; above 0 and at most 80.0 is needed"),
        ({"logit_scale": 100.0}, r"logit_scale is 100.0; above 0 and at most 80.0 is needed"),
        ({"logit_scale": 8.0, "similarity": "cosine"}, r"logit_scale needs similarity softmax; it is cosine"),
        (
            {"style_cells": (2,)},
            r"style_cells is \(2,\); 3 whole numbers from 1 to 64 are needed, .*",
        ),
        (
            {"style_cells": (2, 1, 0)},
            r"style_cells is .*; 3 whole numbers from 1 to 64 are needed, .*",
        ),
        ({"channels": (8, 8)}, r"channels is \(8, 8\); 5 whole numbers from 1 to 8192 are needed, .*"),
        (
            {"encoder_convs": (1, 1, 1, 1, 0)},
            r"encoder_convs is .*; 5 whole numbers from 1 to 64 are needed, .*",
        ),
        (
            {"decoder_convs": (1, 1, 1, 1)},
            r"decoder_convs is .*; 3 whole numbers from 1 to 64 are needed, .*",
        ),
        ({"channels": (8, 8, 8, 8, 9)}, r"channels is .*; the last two must be equal, since these levels are added"),
    ],
)
def test_configs_that_make_no_model(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        ModelConfig(**values)


def test_a_setting_of_a_newer_library_is_an_error() -> None:
    text = "^unknown model settings depth, heads; the file is newer than this library$"
    with pytest.raises(ValueError, match=text):
        ModelConfig.from_dict({"heads": 8, "depth": 2, "levels": ["relu3_1"]})
