"""Attention with bounded logits, and the attention target without learned projections."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from adaattn_core import stylize
from adaattn_core.models.attention import AdaAttention, attention_target
from adaattn_core.models.encoder import LEVELS, Features
from adaattn_core.ops.statistics import channel_mean_std, normalize_channels
from tests.helpers.small_models import SMALL, picture, small_model


def attention(logit_scale: float | None) -> AdaAttention:
    """Projections that are the identity on two channels, and values as they are."""
    layer = AdaAttention(2, 1, logit_scale=logit_scale)
    for conv in (layer.query_proj, layer.key_proj, layer.value_proj):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return layer.requires_grad_(False)


def test_logits_are_cosines_times_the_scale() -> None:
    """Keys (10, 0) and (0, 5), query (0, 3): cosines 0 and 1, so weights 1 / (1 + e^2) and e^2 / (1 + e^2)."""
    layer, e2 = attention(logit_scale=2.0), math.exp(2)
    key = torch.tensor([[[[10.0, 0.0]], [[0.0, 5.0]]]])
    style = layer.encode_style(key, torch.tensor([[[[0.0, 1.0]]]]))
    query = layer.query(torch.tensor([[[[0.0]], [[3.0]]]]))
    mean, _ = layer.statistics(query, (1, 1), style)
    assert mean.item() == pytest.approx(e2 / (1 + e2), abs=1e-6)


def test_the_length_of_keys_and_queries_does_not_matter() -> None:
    model = small_model(config=replace(SMALL, logit_scale=8.0))
    content, style = picture(40, 48, seed=1), picture(48, 40, seed=2)
    before = stylize(model, content, style)
    for level in model.config.levels:
        layer = model.fusion.level_attention(level)
        for conv in (layer.query_proj, layer.key_proj):
            assert conv.bias is not None
            conv.weight.data.mul_(7)
            conv.bias.data.mul_(7)
    assert (stylize(model, content, style) - before).abs().max() < 1e-4


def test_a_higher_scale_attends_to_fewer_positions() -> None:
    deviations = []
    for scale in (0.01, 8.0, 80.0):
        model = small_model(config=replace(SMALL, logit_scale=scale))
        content, style = (model.encoder(picture(48, 48, seed=seed)) for seed in (1, 2))
        with torch.no_grad():
            statistics = model.fusion.statistics(content, [model.fusion.encode_style(style)], [1.0])
        deviations.append(float(statistics["relu3_1"][1].mean()))
    assert deviations == sorted(deviations, reverse=True)


def features(seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    sizes = {level: 16 // 2**index for index, level in enumerate(LEVELS)}
    return {level: torch.rand(1, 4, size, size, generator=generator) for level, size in sizes.items()}


def test_uniform_attention_gives_the_statistics_of_adain() -> None:
    content, style = features(1), features(2)
    target = attention_target(content, style, "relu3_1", logit_scale=1e-6)
    mean = style["relu3_1"].mean(dim=(2, 3), keepdim=True)
    std = style["relu3_1"].std(dim=(2, 3), keepdim=True, correction=0)
    assert torch.allclose(target, std * normalize_channels(content["relu3_1"]) + mean, atol=1e-4)


def test_a_sharp_target_of_a_picture_in_its_own_style_is_the_picture() -> None:
    own = features(3)
    assert torch.allclose(attention_target(own, own, "relu4_1", logit_scale=1e4), own["relu4_1"], atol=1e-3)


def test_masked_style_positions_do_not_count() -> None:
    content, style = features(1), features(2)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    target = attention_target(content, style, "relu3_1", logit_scale=1e-6, style_mask=mask)
    mean, _ = channel_mean_std(style["relu3_1"][..., :2])
    assert torch.allclose(target.mean(dim=(2, 3), keepdim=True), mean, atol=1e-4)
