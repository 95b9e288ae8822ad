"""Attention moments by hand, by property, and against the same formulas in float64 without chunks."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, autocast

from adaattn_core.ops.chunked_attention import CHUNK_BYTES, STD_FLOOR, OnlineMoments
from adaattn_core.ops.moments import (
    SIMILARITIES,
    AttentionKernel,
    AttentionMasks,
    Similarity,
    attention_moments,
    attention_weights,
)
from tests.helpers.random_tensors import normals

TINY_BLOCKS = 1
"""chunk_bytes that gives the smallest blocks there are: 16 content positions."""


def column(*values: float) -> Tensor:
    """(1, positions, 1): one channel."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1)


# ---------------------------------------------------------------- by hand


def test_softmax_moments_by_hand() -> None:
    """Logits 0 and ln 3 are weights 1/4 and 3/4; of values 1 and 5: mean 4, mean square 19, variance 3."""
    mean, std = attention_moments(column(1), column(0, math.log(3)), column(1, 5))
    assert mean.item() == pytest.approx(4, rel=1e-6)
    assert std.item() == pytest.approx(math.sqrt(3), rel=1e-6)


def test_temperature_divides_the_logits() -> None:
    """ln 9 at temperature 2 is ln 3: the case above."""
    mean, std = attention_moments(
        column(1), column(0, math.log(9)), column(1, 5), kernel=AttentionKernel(temperature=2)
    )
    assert mean.item() == pytest.approx(4, rel=1e-6)
    assert std.item() == pytest.approx(math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize(
    ("temperature", "mean", "variance"),
    [
        (1.0, 2.0, 2.0),  # cos + 1 is 2, 1, 0: weights 2/3, 1/3, 0 of values 3, 0, 1: mean square 6
        (0.5, 2.4, 1.44),  # squared, 4, 1, 0: weights 4/5, 1/5, 0: mean square 7.2
        (0.005, 3.0, 0.0),  # to the 200th power, 2 is beyond float32; only the first position is left
    ],
)
def test_cosine_moments_by_hand(temperature: float, mean: float, variance: float) -> None:
    query, key = torch.tensor([[[5.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]]])
    ours = attention_moments(query, key, column(3, 0, 1), kernel=AttentionKernel("cosine", temperature))
    # 1e-5 is added to each length and to the sum of the weights.
    assert ours[0].item() == pytest.approx(mean, abs=5e-5)
    assert ours[1].item() == pytest.approx(math.sqrt(variance), abs=5e-5)


def test_masks_by_hand() -> None:
    """Uniform logits. The content position in the mask sees the style's masked values 1 and 3, the other 8 as well."""
    arguments = torch.zeros(1, 2, 1), torch.zeros(1, 3, 1), column(1, 8, 3)
    content_mask, style_mask = torch.tensor([[True, False]]), torch.tensor([[True, False, True]])
    mean, std = attention_moments(*arguments, masks=AttentionMasks(content_mask, style_mask))
    torch.testing.assert_close(mean, column(2, 4))
    torch.testing.assert_close(std, column(1, math.sqrt(74 / 3 - 16)))
    everywhere, _ = attention_moments(*arguments, masks=AttentionMasks(style=style_mask))
    torch.testing.assert_close(everywhere, column(2, 2))
    free, _ = attention_moments(*arguments, masks=AttentionMasks(content=content_mask))
    torch.testing.assert_close(free, column(4, 4))


# ---------------------------------------------------------------- properties


class Case(NamedTuple):
    """Arguments of `attention_moments`; query (2, 40, 3), key (2, 30, 3), value (2, 30, 4)."""

    query: Tensor
    key: Tensor
    value: Tensor
    content_mask: Tensor | None
    style_mask: Tensor | None


def case(masked: bool, dtype: torch.dtype = torch.float32) -> Case:
    content_mask, style_mask = normals(2, 40, seed=3) > 0, normals(2, 30, seed=4) > 0.5
    query, key, value = (normals(2, n, c, seed=c, dtype=dtype) for n, c in ((40, 3), (30, 3), (30, 4)))
    return Case(query, key, value, content_mask if masked else None, style_mask if masked else None)


def written_out(one: Case, similarity: Similarity, temperature: float) -> tuple[Tensor, Tensor]:
    """The same moments in float64 from the whole matrix of weights, not centred."""
    query, key, value = (x.double() for x in one[:3])
    if similarity == "softmax":
        weights = (torch.einsum("bik,bjk->bij", query, key) / temperature).exp()
    else:
        query, key = (x / (x.square().sum(dim=-1, keepdim=True).sqrt() + 1e-5) for x in (query, key))
        weights = (torch.einsum("bik,bjk->bij", query, key) + 1).clamp(min=0) ** (1 / temperature)
    if one.content_mask is not None and one.style_mask is not None:
        weights = weights * ~(one.content_mask[:, :, None] & ~one.style_mask[:, None, :])
    added = 1e-5 if similarity == "cosine" and temperature == 1 else 0  # the published video code's
    weights = weights / (weights.sum(dim=-1, keepdim=True) + added)
    mean, square = (torch.einsum("bij,bjc->bic", weights, x) for x in (value, value**2))
    return mean, (square - mean**2).clamp(min=1e-8).sqrt()


def ours(one: Case, similarity: Similarity, temperature: float, chunk_bytes: int) -> tuple[Tensor, Tensor]:
    return attention_moments(
        *one[:3],
        kernel=AttentionKernel(similarity, temperature),
        masks=AttentionMasks(one.content_mask, one.style_mask),
        chunk_bytes=chunk_bytes,
    )


VARIANTS = pytest.mark.parametrize(
    ("similarity", "temperature", "masked"),
    [(similarity, temperature, masked) for similarity in SIMILARITIES for temperature, masked in
     ((1.0, False), (1.0, True), (0.7, False), (3.0, True))],
)  # fmt: skip
BLOCKS = pytest.mark.parametrize("chunk_bytes", [TINY_BLOCKS, CHUNK_BYTES])


@VARIANTS
@BLOCKS
def test_chunks_equal_the_formulas(similarity: Similarity, temperature: float, masked: bool, chunk_bytes: int) -> None:
    """Values with gradients recorded and without, and gradients. Where weights do not quite sum to 1 (cosine, by
    1e-5 / 30), centring shifts the mean."""
    one, exact = case(masked), case(masked, torch.float64)
    for x in (*one[:3], *exact[:3]):
        x.requires_grad_()
    found, wanted = ours(one, similarity, temperature, chunk_bytes), written_out(exact, similarity, temperature)
    upstream = normals(2, 2, 40, 4, seed=9, dtype=torch.float64)
    with torch.no_grad():
        untracked = ours(one, similarity, temperature, chunk_bytes)
    for moment, moment_wanted in zip((*found, *untracked), (*wanted, *wanted), strict=True):
        torch.testing.assert_close(moment.double(), moment_wanted, rtol=1e-5, atol=5e-6)
    gradients = torch.autograd.grad(found, one[:3], [x.float() for x in upstream])
    gradients_wanted = torch.autograd.grad(wanted, exact[:3], list(upstream))
    for gradient, gradient_wanted in zip(gradients, gradients_wanted, strict=True):
        torch.testing.assert_close(gradient.double(), gradient_wanted, rtol=1e-4, atol=1e-4)


@VARIANTS
def test_gradcheck(similarity: Similarity, temperature: float, masked: bool) -> None:
    """Derivatives are those of finite differences, through two blocks, recomputed in the backward pass."""
    one = case(masked, torch.float64)
    query, key, value = one.query[:1, :18, :2], one.key[:1, :4, :2], one.value[:1, :4, :1]
    masks = (torch.arange(18)[None] % 2 == 0, torch.tensor([[True, False, True, True]])) if masked else (None, None)

    def moments(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        small = Case(query, key, value, *masks)
        return ours(small, similarity, temperature, TINY_BLOCKS)

    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    assert torch.autograd.gradcheck(moments, inputs, fast_mode=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_permuting_style_positions_changes_nothing(similarity: Similarity) -> None:
    one = case(masked=True)
    assert one.style_mask is not None
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    permuted = one._replace(key=one.key[:, order], value=one.value[:, order], style_mask=one.style_mask[:, order])
    pairs = zip(ours(one, similarity, 1.0, CHUNK_BYTES), ours(permuted, similarity, 1.0, CHUNK_BYTES), strict=True)
    for moment, other in pairs:
        torch.testing.assert_close(moment, other, rtol=1e-5, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_uniform_attention_gives_global_statistics(similarity: Similarity) -> None:
    """Equal keys: for every content position, the mean and (biased) deviation over all style positions."""
    one = case(masked=False)
    one = one._replace(query=one.query.abs(), key=torch.ones_like(one.key))  # no cosine near -1, no weight near 0
    mean, std = ours(one, similarity, 1.0, TINY_BLOCKS)
    torch.testing.assert_close(mean, one.value.mean(dim=1, keepdim=True).expand_as(mean), rtol=0, atol=1e-5)
    wanted = one.value.std(dim=1, keepdim=True, correction=0).expand_as(std)
    torch.testing.assert_close(std, wanted, rtol=1e-5, atol=0)


def one_hot_case() -> tuple[Case, Tensor]:
    """Content position i looks at style position `chosen[i]` only: logits 300 there, 0 elsewhere."""
    chosen = torch.tensor([2, 0, 2, 4])
    key = 300 * torch.eye(5)[None]
    return Case(torch.eye(5)[chosen][None], key, 10 * normals(1, 5, 3), None, None), chosen


def test_one_hot_attention_copies_a_position_with_deviation_0() -> None:
    one, chosen = one_hot_case()
    mean, std = ours(one, "softmax", 1.0, CHUNK_BYTES)
    torch.testing.assert_close(mean, one.value[:, chosen], rtol=1e-6, atol=1e-6)
    assert std.eq(0).all()


def test_one_hot_attention_has_a_finite_gradient() -> None:
    """The root's slope at variance 0 is unbounded; there the gradient is 0 by definition."""
    one, chosen = one_hot_case()
    inputs = [x.requires_grad_() for x in one[:3]]
    mean, std = ours(one, "softmax", 1.0, CHUNK_BYTES)
    of_std = torch.autograd.grad(std.sum(), inputs, retain_graph=True)
    assert all(gradient.eq(0).all() for gradient in of_std)
    of_value = torch.autograd.grad(mean.sum(), one.value)[0]
    counts = torch.bincount(chosen, minlength=5).float()[None, :, None].expand(1, 5, 3)
    torch.testing.assert_close(of_value, counts)  # each value counts as often as it is looked at


def test_deviations_under_the_floor_are_0_and_those_above_it_are_not() -> None:
    for share, wanted in ((0.9, 0.0), (1.1, 1.1 * STD_FLOOR)):
        _, std = attention_moments(column(0), column(0, 0), column(-share * STD_FLOOR, share * STD_FLOOR))
        assert std.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_weight_is_subnormal(dtype: torch.dtype) -> None:
    """Processors multiply those a hundred times more slowly, and with logits of several hundred most weights were.
    Nor is one 0: it would be the exponential of minus infinity, which takes Intel's library thirty times as long."""
    query = torch.ones(4, 1, dtype=dtype)
    logits = -torch.arange(4000, dtype=dtype).reshape(4, 1000) / 4
    sums = OnlineMoments(query, 1)
    for tile in torch.split(logits.clone(), 250, dim=1):
        weights = sums.softmax(tile)
        assert (weights > 1e-30).all()
    wanted = (logits - logits.amax(dim=1, keepdim=True)).exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(sums.total, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_training_meets_no_subnormal_weight(masked: bool, dtype: torch.dtype) -> None:
    """They took an Intel processor nine times as long, there and back, as it takes without."""
    logits = (-torch.arange(4000, dtype=dtype).reshape(1, 4, 1000) / 4).requires_grad_()
    blocked = (torch.arange(1000) % 3 == 1)[None, None] if masked else None
    weights = attention_weights(logits, blocked)
    assert (weights > 1e-30).all()
    wanted = logits if blocked is None else logits.masked_fill(blocked, -torch.inf)
    torch.testing.assert_close(weights, wanted.softmax(dim=-1), rtol=1e-6, atol=1e-27)
    values = torch.linspace(-1, 1, 1000, dtype=dtype)
    found, expected = (
        torch.autograd.grad((one @ values).sum(), logits)[0] for one in (weights, wanted.softmax(dim=-1))
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-27)
    assert ((found == 0) | (found.abs() > 1e-35)).all()


def test_a_common_offset_loses_no_accuracy() -> None:
    """Values of mean 1000 and deviation 1: E[v^2] - E[v]^2 in float32 is off by 0.06, the centred one by rounding."""
    one = case(masked=False)
    shifted = one._replace(value=one.value + 1000)
    mean, std = ours(shifted, "softmax", 1.0, CHUNK_BYTES)
    mean_wanted, std_wanted = written_out(shifted, "softmax", 1.0)
    torch.testing.assert_close(mean.double(), mean_wanted, rtol=0, atol=1.3e-4)  # float32 near 1000: steps of 6e-5
    torch.testing.assert_close(std.double(), std_wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, similarity: Similarity) -> None:
    one = case(masked=True)
    half = one._replace(query=one.query.to(dtype), key=one.key.to(dtype), value=one.value.to(dtype))
    widened = half._replace(query=half.query.float(), key=half.key.float(), value=half.value.float())
    for moment, other in zip(
        ours(half, similarity, 0.9, CHUNK_BYTES), ours(widened, similarity, 0.9, CHUNK_BYTES), strict=True
    ):
        assert moment.dtype == torch.float32 and torch.equal(moment, other)


def test_autocast_does_not_reach_the_moments() -> None:
    one = case(masked=False)
    with autocast("cpu", torch.bfloat16):
        inside = ours(one, "softmax", 1.0, CHUNK_BYTES)
    for moment, other in zip(inside, ours(one, "softmax", 1.0, CHUNK_BYTES), strict=True):
        assert torch.equal(moment, other)


# ---------------------------------------------------------------- progress


@torch.no_grad()
def test_progress_is_the_share_of_rows_done() -> None:
    """40 rows in blocks of 16."""
    one, told = case(masked=True), list[float]()
    for chunk_bytes, wanted in ((TINY_BLOCKS, [16 / 40, 32 / 40, 1.0]), (CHUNK_BYTES, [1.0])):
        told.clear()
        attention_moments(*one[:3], chunk_bytes=chunk_bytes, progress=told.append)
        assert told == wanted


@torch.no_grad()
def test_what_progress_raises_ends_the_work() -> None:
    told = list[float]()

    def stop(done: float) -> None:
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attention_moments(*case(masked=False)[:3], chunk_bytes=TINY_BLOCKS, progress=stop)
    assert told == [16 / 40]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("style_mask", [[[False] * 3] * 2, [[True] * 3, [False] * 3]])
def test_an_empty_style_mask_is_an_error(style_mask: list[list[bool]]) -> None:
    text = "^the style mask is empty: no style position is left to attend to. Paint some of it white.$"
    with pytest.raises(ValueError, match=text):
        attention_moments(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.zeros(2, 3, 1),
                          masks=AttentionMasks(style=torch.tensor(style_mask)))  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_0_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match=rf"^temperature is {temperature}; it must be above 0 \(1 is neutral\)$"):
        AttentionKernel(temperature=temperature)
