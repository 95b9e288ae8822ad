"""Style positions taken together in cells: one key for several positions, and yet all of their values count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adaattn_core.inference.attention_map import attention_map
from adaattn_core.inference.stages import extract_features
from adaattn_core.models.attention import AdaAttention, StyleKV, masked_avg_pool, upsample_cells
from adaattn_core.ops.moments import AttentionMasks, attention_moments
from tests.helpers.small_models import SMALL, picture, small_model


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded_attention(cell: int) -> AdaAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AdaAttention(6, 4, 3, cell=cell).requires_grad_(False)


def statistics(attention: AdaAttention, query: Tensor, style: StyleKV) -> tuple[Tensor, Tensor]:
    return attention.statistics(query, (3, 4), style)


def test_means_of_cells_by_hand_the_last_ones_cut_off() -> None:
    x = torch.tensor([[1.0, 3, 5], [1, 3, 7], [2, 6, 9]])[None, None]
    assert masked_avg_pool(x, 2)[0, 0].tolist() == [[2, 6], [4, 9]]
    assert upsample_cells(masked_avg_pool(x, 2), 2, (3, 3))[0, 0].tolist() == [[2, 2, 6], [2, 2, 6], [4, 4, 9]]


def test_a_cell_is_the_mean_of_its_allowed_positions_and_of_all_where_none_is() -> None:
    x = torch.tensor([[1.0, 3, 5], [1, 3, 7], [2, 6, 9]])[None, None]
    allowed = torch.tensor([[True, False, False], [False, True, False], [True, False, False]])[None, None]
    assert masked_avg_pool(x, 2, allowed)[0, 0].tolist() == [[2, 6], [2, 9]]
    assert masked_avg_pool(x, 2, torch.zeros_like(allowed)).equal(masked_avg_pool(x, 2))


def test_all_values_of_a_cell_count() -> None:
    """Where attention is even, cells of 2 x 2 have the statistics of all positions: the mean, and the deviation too."""
    query, key, value = torch.zeros(1, 12, 3), normals(1, 6, 4, 6), normals(1, 4, 4, 6, seed=1)
    found = [statistics(one, query, one.encode_style(key, value)) for one in map(seeded_attention, (2, 1))]
    for cells, positions in zip(*found, strict=True):
        torch.testing.assert_close(cells, positions, rtol=0, atol=1e-6)


def test_cells_of_like_positions_attend_as_the_positions_do() -> None:
    key, value = (upsample_cells(normals(1, channels, 3, 2), 2, (6, 4)) for channels in (6, 4))
    query = 2 * normals(1, 12, 3, seed=2)
    found = [statistics(one, query, one.encode_style(key, value)) for one in map(seeded_attention, (2, 1))]
    for cells, positions in zip(*found, strict=True):
        torch.testing.assert_close(cells, positions, rtol=0, atol=1e-6)


def test_cells_of_a_masked_style_look_only_at_allowed_positions() -> None:
    """Positions that are not allowed may hold anything: nothing of them comes through."""
    attention, key, value = seeded_attention(2), normals(1, 6, 5, 7), normals(1, 4, 5, 7, seed=1)
    mask = (normals(1, 1, 5, 7, seed=2) > 0.3).float()
    query = normals(1, 12, 3, seed=3)
    one = statistics(attention, query, attention.encode_style(key, value, mask))
    key, value = (torch.where(mask > 0, x, 3 * normals(*x.shape, seed=4)) for x in (key, value))
    other = statistics(attention, query, attention.encode_style(key, value, mask))
    for before, after in zip(one, other, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_pruned_moments_of_cells_equal_those_of_all_chunks(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = 6 * normals(2, 150, 5), normals(2, 300, 5, seed=1), normals(2, 300, 3, seed=2)
    value_variance = 0.1 + normals(2, 300, 3, seed=3).square()
    masks = AttentionMasks(style=normals(2, 300, seed=4) > 0 if masked else None)
    with torch.no_grad():
        wanted = attention_moments(query, key, value, masks=masks, value_variance=value_variance)
        monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS", 0)
        monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS_PER_MATRIX_ENTRY", 0)
        found = attention_moments(query, key, value, masks=masks, value_variance=value_variance)
    plain = attention_moments(query, key, value, masks=masks)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (found[1] > plain[1] + 0.01).all()


def test_gradients_reach_values_and_their_variance() -> None:
    query, key, value = (normals(1, n, 3, seed=n + i).double().requires_grad_() for i, n in enumerate((4, 5, 5)))
    value_variance = (0.1 + normals(1, 5, 3, seed=8).square()).double().requires_grad_()
    moments = lambda q, k, v, s: attention_moments(q, k, v, value_variance=s)  # noqa: E731
    assert torch.autograd.gradcheck(moments, (query, key, value, value_variance))


def test_a_heat_map_of_cells_has_their_grid() -> None:
    model = small_model(config=replace(SMALL, style_cells=(2, 1, 1)))
    content, style = (extract_features(model.encoder, picture(*size)) for size in ((32, 48), (40, 56)))
    weights = attention_map(model.fusion, content, style, (0.5, 0.5), SMALL.levels[0])
    assert weights.shape == (1, 5, 7)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
