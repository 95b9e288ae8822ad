"""The style positions that are left out weigh nothing, and the moments are those of the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adaattn_core.ops.key_pruning import (
    MAX_DROPPED_WEIGHT,
    ROWS,
    KeyPruner,
    cluster_queries,
    drop_smallest,
    fast_argmax,
    is_flat,
)
from adaattn_core.ops.moments import AttentionKernel, AttentionMasks, attention_moments
from tests.helpers.random_tensors import normals


def clustered(positions: int, channels: int, sharpness: float, seed: int) -> Tensor:
    """(positions, channels): eight directions, the same for every seed, with noise in all channels around them."""
    which = torch.randint(8, (positions,), generator=torch.Generator().manual_seed(seed))
    return sharpness * (normals(8, channels)[which] + 0.3 * normals(positions, channels, seed=seed + 1))


CASES = pytest.mark.parametrize(
    ("channels", "sharpness"),
    [(64, 2.0), (64, 4.0), (6, 4.0), (64, 0.3)],
    ids=["peaked", "very peaked", "few channels", "flat"],
)


@CASES
@pytest.mark.parametrize(("rows", "tile_bytes"), [(1, 2**30), (7, 2**30), (64, 2**30), (64, 2**15), (7, 1)])
def test_what_is_left_out_weighs_nothing(channels: int, sharpness: float, rows: int, tile_bytes: int) -> None:
    """For every row the weights of the positions left out, from the whole softmax in float64; also where bounds are
    made in pieces of keys, down to one key each."""
    query, key = (clustered(n, channels, sharpness, seed) for n, seed in ((200, 10), (500, 20)))
    weights = (query.double() @ key.double().T).softmax(dim=1)
    seen = torch.zeros(len(query), dtype=torch.bool)
    pruner = KeyPruner(query, key, rows, tile_bytes)
    for group in pruner.groups:
        seen[group] = True
        left_out = torch.ones(len(key), dtype=torch.bool)
        left_out[pruner.candidates(group)] = False
        assert weights[group][:, left_out].sum(dim=1).max() < MAX_DROPPED_WEIGHT / 2
    assert seen.all()


def test_peaked_attention_keeps_few_positions_and_flat_attention_is_not_searched() -> None:
    query, key = (clustered(n, 64, 4.0, seed) for n, seed in ((2000, 10), (500, 20)))
    pruner = KeyPruner(query, key, 32)
    kept = [len(pruner.candidates(group)) for group in pruner.groups]
    assert sum(kept) < 0.3 * 500 * len(kept)
    assert pruner.is_worthwhile() and not is_flat(query, key)
    assert is_flat(query / 20, key / 20) and not KeyPruner(query / 20, key / 20, 32).is_worthwhile()


def test_a_search_is_given_up_where_groups_look_everywhere_though_single_rows_do_not() -> None:
    query = 4 * normals(64, 64, seed=1)  # each looks at itself, so all of them together at all
    rows = (query @ query.T).softmax(dim=1)
    assert ((rows > MAX_DROPPED_WEIGHT / 64).sum(dim=1) < 0.1 * 64).all()
    assert is_flat(query, query)
    assert not KeyPruner(query, query, 64).is_worthwhile()


def test_attention_is_not_flat_where_queries_that_are_alike_look_at_the_same_few_positions() -> None:
    """Queries of all kinds lie next to each other; all of them together look everywhere."""
    key = 4 * normals(64, 64, seed=1)
    assert not is_flat(key.repeat(ROWS, 1), key)


def test_the_smallest_weights_are_left_out_up_to_a_sum() -> None:
    weights = torch.tensor([0.1, 1e-3, 0.4, 2e-3, 0.3, 1e-9])
    assert sorted(drop_smallest(weights, 2 * 3.5e-3).tolist()) == [0, 2, 4]
    assert sorted(drop_smallest(weights, 2 * 2.5e-3).tolist()) == [0, 2, 3, 4]
    assert sorted(drop_smallest(weights, 0.0).tolist()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("columns", [1, 100, 128, 129, 400])
def test_largest_is_argmax(columns: int) -> None:
    numbers = normals(9, columns)
    assert fast_argmax(numbers).tolist() == numbers.argmax(dim=1).tolist()


def written_out(query: Tensor, key: Tensor, value: Tensor, temperature: float, style_mask: Tensor | None) -> Tensor:
    """Mean and deviation in float64 with the whole matrix of weights: (2, B, Nc, C)."""
    logits = torch.einsum("bik,bjk->bij", query.double(), key.double()) / temperature
    if style_mask is not None:
        logits = logits.masked_fill(~style_mask[:, None], -torch.inf)
    weights = logits.softmax(dim=-1)
    mean = weights @ value.double()
    variance = (weights[..., None] * (value.double()[:, None] - mean[:, :, None]).square()).sum(dim=2)
    return torch.stack([mean, variance.sqrt()])


@CASES
@pytest.mark.parametrize("temperature", [1.0, 0.5, 5.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gathered", [2048, 5])
@torch.no_grad()
def test_pruned_moments_equal_the_formulas(
    channels: int, sharpness: float, temperature: float, masked: bool, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, to what the positions left out may weigh; in float32, means to 1e-4 of the values' range too."""
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS", 0)
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS_PER_MATRIX_ENTRY", 0)
    monkeypatch.setattr("adaattn_core.ops.chunked_attention.CANDIDATES_PER_CHUNK", gathered)
    query, key = (
        torch.stack([clustered(n, channels, sharpness, seed) for seed in (one, one + 50)])
        for n, one in ((150, 10), (300, 20))
    )
    value = 10 + normals(2, 300, 3, seed=30)
    style_mask = normals(2, 300, seed=40) > 0.5 if masked else None
    kernel, masks = AttentionKernel(temperature=temperature), AttentionMasks(style=style_mask)
    told = list[float]()
    wanted = written_out(query, key, value, temperature, style_mask)
    spread = float(value.max() - value.min())
    mean, std = attention_moments(query.double(), key.double(), value.double(), kernel=kernel, masks=masks)
    torch.testing.assert_close(mean, wanted[0], rtol=0, atol=MAX_DROPPED_WEIGHT * spread)
    torch.testing.assert_close(std.square(), wanted[1].square(), rtol=0, atol=1.25 * MAX_DROPPED_WEIGHT * spread**2)
    mean, _ = attention_moments(query, key, value, kernel=kernel, masks=masks, progress=told.append)
    torch.testing.assert_close(mean.double(), wanted[0], rtol=0, atol=1e-4 * spread)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) >= 2


@torch.no_grad()
def test_moments_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS", 0)
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS_PER_MATRIX_ENTRY", 0)
    query, key = (clustered(n, 64, 4.0, seed)[None] for n, seed in ((2000, 10), (500, 20)))
    value, before, found = normals(1, 500, 3, seed=30), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(torch.stack(attention_moments(query, key, value)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_groups_by_hand() -> None:
    """The second coordinate spreads most: halved along it first, then each half along its own widest."""
    points = torch.tensor(
        [[0.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 10.0], [5.0, 10.0], [5.0, 0.0], [6.0, 9.0], [6.0, 1.0]]
    )
    groups = cluster_queries(points, 2)
    assert [sorted(group.tolist()) for group in groups] == [[1, 2], [5, 7], [0, 3], [4, 6]]


@pytest.mark.parametrize(("count", "rows"), [(1, 4), (4, 4), (5, 4), (100, 7), (257, 64)])
def test_groups_hold_every_point_and_are_no_larger_than_asked(count: int, rows: int) -> None:
    groups = cluster_queries(normals(count, 3), rows)
    assert groups.shape[1] <= rows
    assert set(groups.flatten().tolist()) == set(range(count))
    assert groups.numel() < count + 2 ** math.ceil(math.log2(max(1, count / rows))) + 1
