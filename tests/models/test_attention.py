"""Attention of one level: keys and values, masks and sampling, by hand and by property."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adaattn_core.models.attention import AdaAttention, StyleKV, mask_on_grid, stacked_key
from adaattn_core.models.encoder import LEVELS, Features
from adaattn_core.ops.statistics import normalize_channels
from tests.helpers.comparison import assert_same
from tests.helpers.random_tensors import normals, seeded


def ramp_features() -> Features:
    """One channel a level, all of different values, for a picture of 16 x 32."""
    sizes = [(16 // 2**index, 32 // 2**index) for index in range(5)]
    return {level: torch.arange(1.0 * h * w).reshape(1, 1, h, w) for level, (h, w) in zip(LEVELS, sizes, strict=True)}


def test_stacked_key_by_hand() -> None:
    """On relu3_1's grid of 4 x 8, nearest takes relu1_1 at every fourth and relu2_1 at every second row and column."""
    features = ramp_features()
    key = stacked_key(features, "relu3_1")
    shallow, middle = features["relu1_1"][..., ::4, ::4], features["relu2_1"][..., ::2, ::2]
    wanted = torch.cat([normalize_channels(x) for x in (shallow, middle, features["relu3_1"])], dim=1)
    assert torch.equal(key, wanted)


def test_positions_mask_is_nearest_and_above_a_half() -> None:
    mask = torch.tensor([[0.2, 0.9, 0.6, 0.0], [1.0] * 4, [0.5, 1.0, 0.51, 1.0], [1.0] * 4])[None, None]
    assert mask_on_grid(mask, (2, 2)).tolist() == [[False, True, False, True]]


def test_a_mask_too_small_for_the_grid_keeps_the_positions_it_touches() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 17, 5] = 1  # nearest resizing to 2 x 2 looks at rows and columns 0 and 16 only
    assert mask_on_grid(mask, (2, 2)).tolist() == [[False, False, True, False], [False] * 4]


def seeded_attention(**options: Any) -> AdaAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AdaAttention(6, 4, 3, **options).requires_grad_(False)


def test_keys_and_values_are_projections_row_by_row() -> None:
    attention, key, value = seeded_attention(), normals(2, 6, 3, 5), normals(2, 4, 3, 5, seed=1)
    style = attention.encode_style(key, value)
    assert style.mask is None and style.key.shape == (2, 15, 3) and style.value.shape == (2, 15, 4)
    # Second row, third column: position 1 * 5 + 2.
    for found, conv, features in ((style.key, attention.key_proj, key), (style.value, attention.value_proj, value)):
        assert conv.bias is not None
        torch.testing.assert_close(found[:, 7], features[:, :, 1, 2] @ conv.weight[:, :, 0, 0].T + conv.bias)


def test_projections_are_as_wide_as_the_key_by_default() -> None:
    assert AdaAttention(6, 4).query_proj.weight.shape == (6, 6, 1, 1)


def test_initial_attention_is_scaled_dot_product_attention() -> None:
    """Logits q . k / sqrt(K) and values as they are, where nothing is projected to fewer channels."""
    with torch.random.fork_rng(devices=[]):
        attention = AdaAttention(9, 4).requires_grad_(False)
        attention.initialize()
    query, key, value = normals(1, 9, 3, 5), normals(1, 9, 3, 5, seed=1), normals(1, 4, 3, 5, seed=2)
    logits = torch.einsum("bkhw,bkhw->bhw", attention.query_proj(query), attention.key_proj(key))
    assert_same(logits, torch.einsum("bkhw,bkhw->bhw", query, key) / 3, 1e-5)
    assert_same(attention.value_proj(value), value, 1e-5)


def test_sampling_takes_whole_positions_by_the_generator() -> None:
    attention, key, value = seeded_attention(), normals(2, 6, 4, 5), normals(2, 4, 4, 5, seed=1)
    mask = (normals(2, 1, 4, 5, seed=2) > 0).float()
    whole = attention.encode_style(key, value, mask)
    some, again, other = (attention.encode_style(key, value, mask, 7, seeded(seed)) for seed in (0, 0, 1))
    assert some.key.shape == (2, 7, 3)
    chosen = [int((whole.key[0] - one).abs().sum(dim=1).argmin()) for one in some.key[0]]
    assert len(set(chosen)) == 7
    assert whole.mask is not None and some.mask is not None
    assert torch.equal(some.key, whole.key[:, chosen]) and torch.equal(some.value, whole.value[:, chosen])
    assert torch.equal(some.mask, whole.mask[:, chosen])
    assert torch.equal(some.key, again.key) and not torch.equal(some.key, other.key)


def test_sampling_as_many_as_there_are_keeps_all_in_order() -> None:
    attention, key, value = seeded_attention(), normals(1, 6, 4, 5), normals(1, 4, 4, 5, seed=1)
    assert torch.equal(attention.encode_style(key, value, None, 20).key, attention.encode_style(key, value).key)


@pytest.mark.parametrize("seed", range(5))
def test_sampling_never_misses_a_small_mask(seed: int) -> None:
    mask = torch.zeros(2, 1, 40, 50)
    mask[0, 0, 7, 9] = mask[1, 0, 30, 2] = 1
    style = seeded_attention().encode_style(normals(2, 6, 40, 50), normals(2, 4, 40, 50), mask, 5, seeded(seed))
    assert style.mask is not None and style.mask.sum(dim=1).tolist() == [1, 1] and style.key.shape == (2, 5, 3)


def test_sampling_needs_a_generator() -> None:
    text = "^sampled attention needs a torch.Generator, so that the same seed gives one picture$"
    with pytest.raises(ValueError, match=text):
        seeded_attention().encode_style(normals(1, 6, 4, 5), normals(1, 4, 4, 5), None, 7)


def test_attending_to_a_mask_is_attending_to_a_smaller_style() -> None:
    attention, content, key, value = seeded_attention(), normals(1, 6, 4, 4), normals(1, 6, 4, 5), normals(1, 4, 4, 5)
    mask = (normals(1, 1, 4, 5, seed=2) > 0).float()
    style = attention.encode_style(key, value, mask)
    assert style.mask is not None
    kept = style.mask[0]
    cut = StyleKV(style.key[:, kept], style.value[:, kept], None)
    query = attention.query(content)
    pairs = zip(*(attention.statistics(query, (4, 4), one) for one in (style, cut)), strict=True)
    for masked, smaller in pairs:
        assert_same(masked, smaller, 1e-5)


def test_outside_the_content_mask_the_whole_style_is_seen() -> None:
    attention, content, key, value = seeded_attention(), normals(1, 6, 4, 4), normals(1, 6, 4, 5), normals(1, 4, 4, 5)
    content_mask, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 5)
    content_mask[..., :4, :] = mask[..., :2] = 1
    style = attention.encode_style(key, value, mask)
    query = attention.query(content)
    mixed, _ = attention.statistics(query, (4, 4), style, content_mask=content_mask)
    inside, _ = attention.statistics(query, (4, 4), style)
    outside, _ = attention.statistics(query, (4, 4), style._replace(mask=None))
    assert torch.equal(mixed[..., :2, :], inside[..., :2, :])
    assert torch.equal(mixed[..., 2:, :], outside[..., 2:, :])
