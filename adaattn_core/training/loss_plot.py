"""The loss over a training run as an SVG picture: one panel per stage, since each minimises something else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple
from xml.sax.saxutils import escape

Point = tuple[int, float]
"""step, loss"""

WIDTH, HEIGHT = 960, 380
TOP, BOTTOM, LEFT, GAP, RIGHT = 66, 52, 66, 56, 20
"""Margins around the panels and between them, where the tick labels stand."""
SMALLEST = 1e-9
"""Losses are raised to this for the logarithm."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:16px;font-weight:600;fill:#111}"
    ".name{font-weight:600;fill:#111}.grid{stroke:#e4e4e4}.frame{fill:none;stroke:#999}"
    ".raw{fill:none;stroke:#9ec5ea;stroke-width:.8}.smooth{fill:none;stroke:#0b5cad;stroke-width:2}"
)


def loss_curve_svg(points: Sequence[tuple[int, str, float]]) -> str:
    """A picture of (step, stage, loss) points: each stage beside the one before, on a logarithmic scale of its own.

    The raw losses are drawn faintly, their running mean over a fortieth of the stage boldly.
    """
    stages = [(name, [(step, loss) for step, _, loss in group]) for name, group in groupby(points, lambda p: p[1])]
    title = f"Training loss, {points[-1][0]} steps" if points else "Training loss, no step yet"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="26">{title}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>',
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">total loss (log scale)</text>',
    ]
    room = WIDTH - LEFT - RIGHT - GAP * max(0, len(stages) - 1)
    left = float(LEFT)
    for name, curve in stages:
        width = room * (0.5 / len(stages) + 0.5 * len(curve) / len(points))  # a short stage stays readable
        parts += _panel(name, curve, left, width)
        left += width + GAP
    return "\n".join([*parts, "</svg>\n"])


class _Scale(NamedTuple):
    """Data -> pixels of one panel."""

    first: float
    last: float
    low: float
    high: float
    left: float
    width: float

    def x(self, step: float) -> float:
        return self.left + self.width * (step - self.first) / max(1, self.last - self.first)

    def y(self, loss: float) -> float:
        place = math.log(max(loss, SMALLEST) / self.low) / math.log(self.high / self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(1.0, max(0.0, place)))

    def path(self, kind: str, curve: Sequence[Point]) -> str:
        line = " ".join(f"{self.x(step):.1f},{self.y(loss):.1f}" for step, loss in curve)
        return f'<polyline class="{kind}" points="{line}"/>'


def _panel(name: str, curve: Sequence[Point], left: float, width: float) -> list[str]:
    smooth = running_mean(curve, max(1, len(curve) // 40))
    ordered = sorted(max(loss, SMALLEST) for _, loss in curve)
    outliers = len(ordered) // 200
    low = max(SMALLEST, 0.95 * ordered[outliers])
    high = 1.05 * max(ordered[-1 - outliers], *(loss for _, loss in smooth), low)
    scale = _Scale(curve[0][0], curve[-1][0], low, high, left, width)
    bottom = HEIGHT - BOTTOM
    parts = [f'<text class="name" x="{left:.1f}" y="{TOP - 18}">{escape(name)}</text>']
    parts += [f'<text x="{left:.1f}" y="{TOP - 4}">now {smooth[-1][1]:.4g}</text>']
    for loss in log_ticks(low, high):
        y = scale.y(loss)
        parts += [
            f'<path class="grid" d="M{left:.1f} {y:.1f}h{width:.1f}"/>',
            f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{loss:g}</text>',
        ]
    for step in step_ticks(curve[0][0], curve[-1][0], max(1, int(width / 45))):
        x = scale.x(step)
        parts += [
            f'<path class="frame" d="M{x:.1f} {bottom}v5"/>',
            f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{step}</text>',
        ]
    frame = f'<rect class="frame" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{bottom - TOP}"/>'
    return [*parts, scale.path("raw", thinned(curve, 400)), scale.path("smooth", thinned(smooth, 400)), frame]


def running_mean(curve: Sequence[Point], reach: int) -> list[Point]:
    """Each loss averaged with the `reach` before and after it, as far as there are.

    >>> running_mean([(1, 3.0), (2, 6.0), (3, 0.0)], 1)
    [(1, 4.5), (2, 3.0), (3, 3.0)]
    """
    sums = [0.0]
    for _, loss in curve:
        sums.append(sums[-1] + loss)
    averaged = []
    for index, (step, _) in enumerate(curve):
        start, stop = max(0, index - reach), min(len(curve), index + reach + 1)
        averaged.append((step, (sums[stop] - sums[start]) / (stop - start)))
    return averaged


def thinned(curve: Sequence[Point], most: int) -> list[Point]:
    """About `most` points at the most: of each stretch the lowest and the highest, and the curve's end.

    >>> thinned([(1, 5.0), (2, 1.0), (3, 9.0), (4, 4.0)], 2)
    [(2, 1.0), (3, 9.0), (4, 4.0)]
    """
    if len(curve) <= most:
        return list(curve)
    length = math.ceil(2 * len(curve) / most)
    kept = {curve[-1]}
    for start in range(0, len(curve), length):
        stretch = sorted(curve[start : start + length], key=lambda point: point[1])
        kept |= {stretch[0], stretch[-1]}
    return sorted(kept)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about eight at the most, closer together in a narrow range.

    >>> log_ticks(0.9, 65), log_ticks(2.1, 2.5)
    ([1.0, 2.0, 5.0, 10.0, 20.0, 50.0], [2.1, 2.2, 2.3, 2.4, 2.5])
    """
    if high / low < 3:
        step = _round_step((high - low) / 5)
        multiples = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        return [float(f"{multiple * step:.6g}") for multiple in multiples]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in (range(1, 10), (1, 2, 3, 5, 7), (1, 2, 5), (1,)):
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= 8:
            break
    return inside[:: math.ceil(len(inside) / 8)]


def step_ticks(first: int, last: int, most: int) -> list[int]:
    """Round step numbers from first to last, no more than about `most`.

    >>> step_ticks(1, 500, 5), step_ticks(7, 7, 5)
    ([100, 200, 300, 400, 500], [7])
    """
    if first == last:
        return [first]
    step = max(1, round(_round_step((last - first) / most)))
    return list(range(math.ceil(first / step) * step, last + 1, step))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10 times a power of ten that is not less than `least`, up to rounding."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
