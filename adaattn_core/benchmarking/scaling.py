"""How seconds and memory grow with the pixels: fitted curves, counted arithmetic, and where attention takes over.

Convolutions are linear in the pixels; attention of a content to a style of its own size goes with their square, but for
the style positions that screening leaves out. Contents and styles are squares of one size, as in `bench`.
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
    """constant + linear * p + square * p^2, none of them negative; p in million pixels."""

    constant: float
    linear: float
    square: float

    def at(self, side: int) -> float:
        """Value for a square picture."""
        pixels = side * side / MEGA
        return self.constant + self.linear * pixels + self.square * pixels * pixels


class Work(NamedTuple):
    """Arithmetic of one picture in its style, in floating-point operations: 2 for a multiplication and addition."""

    convolutions: float
    attention: float


def fit(sides: Sequence[int], values: Sequence[float], degree: int) -> CostCurve:
    """The curve with the least relative error: without weights, the largest picture alone would decide.

    Args:
        sides: of square pictures, more than `degree` different ones.
        values: above 0.
        degree: 1 or 2, in pixels.

    Raises:
        ValueError: too few sizes.
    """
    if len(set(sides)) <= degree:
        raise ValueError(f"{len(set(sides))} sizes came; a curve needs at least {degree + 1}. Add some to --sizes.")
    pixels = torch.tensor([side * side / MEGA for side in sides], dtype=torch.float64)
    wanted = torch.tensor(values, dtype=torch.float64)
    columns = torch.stack([pixels**power for power in range(degree + 1)], dim=1) / wanted[:, None]
    best, smallest = CostCurve(0, 0, 0), float("inf")
    # Least squares without negative coefficients: those that would be are 0, so all choices of the others are tried.
    for powers in (chosen for count in range(1, degree + 2) for chosen in combinations(range(degree + 1), count)):
        some = columns[:, powers]
        found = torch.linalg.lstsq(some, torch.ones_like(pixels)).solution
        error = float((some @ found - 1).square().sum())
        if bool((found >= 0).all()) and error < smallest:
            numbers = dict(zip(powers, found.tolist(), strict=True))
            best, smallest = CostCurve(*(numbers.get(power, 0.0) for power in range(3))), error
    return best


def crossover(linear: float, square: float) -> int | None:
    """Side of the square picture at which what grows with the square of the pixels equals what grows with them."""
    return round((linear / square * MEGA) ** 0.5) if square > 0 else None


def flops(config: ModelConfig, side: int) -> Work:
    """Arithmetic for a square content and a style of its size, every pair of positions counted."""
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
    """Curves of one subject.

    Args:
        rows: what was measured of it, as `bench.compare` gives them.
        config: whose arithmetic is counted; None where it is not known (the reference).
        sizes: sides to tell the curves' values at; those that were not measured are extrapolated.

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
    found = {
        "subject": rows[0]["subject"],
        "seconds": seconds._asdict(),
        "peak_gib": memory._asdict(),
        "crossover": crossover(seconds.linear, seconds.square),
        "points": points,
    }
    if config is not None:
        counted = flops(config, 1024)
        pixels = 1024**2 / MEGA
        found["crossover_by_arithmetic"] = crossover(counted.convolutions / pixels, counted.attention / pixels**2)
    return found
