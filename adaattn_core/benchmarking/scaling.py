"""Growth of time and memory with the number of pixels: fitted curves, operations by formula, and their crossover.

Convolutions grow linearly with the pixels. Attention of a content to a style of the same size grows with their square,
less the style positions that key pruning leaves out. Contents and styles are squares of equal size, as in `inference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import ceil
from typing import Any, NamedTuple

import torch

from ..models.config import ModelConfig
from ..models.cost import Convolution, attention_levels, decoder_convolutions, encoder_convolutions
from ..models.encoder import LEVELS

MEGA = 1e6


class CostCurve(NamedTuple):
    """constant + linear * p + square * p^2 with p in million pixels; no coefficient is negative."""

    constant: float
    linear: float
    square: float

    def at(self, side: int) -> float:
        """Value for a square picture of this side in pixels."""
        pixels = side * side / MEGA
        return self.constant + self.linear * pixels + self.square * pixels * pixels


class Work(NamedTuple):
    """Floating-point operations of one stylisation: 2 per multiplication and addition."""

    convolutions: float
    attention: float


def fit(sides: Sequence[int], values: Sequence[float], degree: int) -> CostCurve:
    """The curve with the least squared relative error; absolute errors would let the largest picture decide alone.

    Args:
        sides: sides of square pictures, more than `degree` different ones.
        values: measurements above 0.
        degree: 1 or 2, the highest power of the number of pixels.

    Raises:
        ValueError: too few sizes.
    """
    if len(set(sides)) <= degree:
        raise ValueError(f"{len(set(sides))} sizes came; a curve needs at least {degree + 1}. Add some to --sizes.")
    pixels = torch.tensor([side * side / MEGA for side in sides], dtype=torch.float64)
    measured = torch.tensor(values, dtype=torch.float64)
    columns = torch.stack([pixels**power for power in range(degree + 1)], dim=1) / measured[:, None]
    best, smallest = CostCurve(0, 0, 0), float("inf")
    # Non-negative least squares: every subset of the powers is tried, the coefficients of the others are 0.
    for powers in (subset for count in range(1, degree + 2) for subset in combinations(range(degree + 1), count)):
        selected = columns[:, powers]
        solution = torch.linalg.lstsq(selected, torch.ones_like(pixels)).solution
        error = float((selected @ solution - 1).square().sum())
        if bool((solution >= 0).all()) and error < smallest:
            coefficients = dict(zip(powers, solution.tolist(), strict=True))
            best, smallest = CostCurve(*(coefficients.get(power, 0.0) for power in range(3))), error
    return best


def crossover(linear: float, square: float) -> int | None:
    """Side of the square picture at which the linear and the square term are equal; None without a square term."""
    return round((linear / square * MEGA) ** 0.5) if square > 0 else None


def flops(config: ModelConfig, side: int) -> Work:
    """Operations for a square content and a style of the same size, counting every pair of positions."""
    grids = [ceil(side / 2**block) ** 2 for block in range(len(LEVELS))]
    encoder = 2 * 3 * 3 * grids[0] + _convolution_flops(encoder_convolutions(config), grids)  # conv0 is 1x1, RGB to RGB
    convolutions, attention = 2 * encoder + _convolution_flops(decoder_convolutions(config), grids), 0
    for level in attention_levels(config):
        content_positions = grids[level.block]
        style_positions = ceil(ceil(side / 2**level.block) / level.cell) ** 2
        projection = 2 * level.key_channels * level.projection_channels
        convolutions += projection * (content_positions + style_positions) + 2 * level.channels**2 * content_positions
        attention += 2 * content_positions * style_positions * (level.projection_channels + 2 * level.channels)
    return Work(convolutions, attention)


def _convolution_flops(convolutions: Sequence[Convolution], grids: Sequence[int]) -> int:
    """Of 3x3 convolutions; `grids` holds the positions of each block."""
    return sum(2 * 9 * layer.in_channels * layer.out_channels * grids[layer.block] for layer in convolutions)


def describe(rows: Sequence[dict[str, Any]], config: ModelConfig | None, sizes: Sequence[int]) -> dict[str, Any]:
    """The curves of one subject.

    Args:
        rows: its measurements, from `inference.compare`.
        config: config whose operations are counted; None where there is none (the reference).
        sizes: sides at which to give the values of the curves; those that were not measured are extrapolated.

    Returns:
        `seconds` and `peak_gib` as coefficients, `crossover` by the seconds, `points`, and `crossover_by_arithmetic`.

    Raises:
        ValueError: too few sizes.
    """
    measured = {row["size"]: row for row in rows}
    seconds = fit(list(measured), [row["seconds"] for row in rows], 2)
    memory = fit(list(measured), [row["peak_gib"] for row in rows], 1)
    points = []
    for size in sorted({*measured, *sizes}):
        row = measured.get(size, {})
        point = {"size": size, "seconds_fit": seconds.at(size), "peak_gib_fit": memory.at(size)}
        point |= {name: row[name] for name in ("seconds", "peak_gib", "gflop", "gigabytes") if name in row}
        if config is not None:
            counted = flops(config, size)
            point |= {"gflop_convolutions": counted.convolutions / 1e9, "gflop_attention": counted.attention / 1e9}
        points.append(point)
    description = {
        "subject": rows[0]["subject"],
        "seconds": seconds._asdict(),
        "peak_gib": memory._asdict(),
        "crossover": crossover(seconds.linear, seconds.square),
        "points": points,
    }
    if config is not None:
        counted = flops(config, 1024)
        pixels = 1024**2 / MEGA
        description["crossover_by_arithmetic"] = crossover(counted.convolutions / pixels, counted.attention / pixels**2)
    return description
