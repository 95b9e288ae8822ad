"""Subjects of an evaluation as points: content kept to the right, style taken upwards. SVG for an HTML page.

Colours are CSS variables of that page (see `report`), so that the chart follows its light and dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT = 860, 470
LEFT, RIGHT, TOP, BOTTOM = 78, 26, 26, 62
LETTER, LINE = 7.0, 15.0
"""Size of a label's letters, estimated: a label may be placed a little too far away, never on top of another."""
REACH = 7.0


Data = Mapping[str, Any]


class Axis(NamedTuple):
    """Numbers -> pixels; `low` may be the larger one, where less is better."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 7) -> list[float]:
        return round_numbers(min(self.low, self.high), max(self.low, self.high), most)


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)


class Point(NamedTuple):
    """A subject in pixels: its mean, and the ends of its intervals."""

    x: float
    y: float
    across: tuple[float, ...]
    along: tuple[float, ...]

    def boxes(self) -> list[Box]:
        """What no label should cover."""
        return [
            Box(self.x - REACH, self.y - REACH, self.x + REACH, self.y + REACH),
            Box(self.across[0], self.y - 1, self.across[1], self.y + 1),
            Box(self.x - 1, self.along[0], self.x + 1, self.along[1]),
        ]


def scatter_svg(subjects: Sequence[Data], content: Data, style: Data, classes: Sequence[str]) -> str:
    """A chart of two metrics.

    Args:
        subjects, content, style: of the report's data: "subjects", and two of "metrics".
        classes: CSS class of each subject, which gives its colour.
    """
    x_axis = _axis(subjects, content, LEFT, WIDTH - RIGHT)
    y_axis = _axis(subjects, style, HEIGHT - BOTTOM, TOP)
    title = f"{style['title']} against {content['title']}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts += _grid(x_axis, y_axis, content["title"], style["title"])
    points = [_point(x_axis, y_axis, subject, content, style) for subject in subjects]
    labels = place_labels(points, [subject["name"] for subject in subjects])
    for index, (subject, point, label) in enumerate(zip(subjects, points, labels, strict=True)):
        parts += [
            f'<g class="point {classes[index]}"><title>{escape(_told(subject, content, style))}</title>',
            f'<path class="whisker" d="M{point.across[0]:.1f} {point.y:.1f}H{point.across[1]:.1f}'
            f'M{point.x:.1f} {point.along[0]:.1f}V{point.along[1]:.1f}"/>',
            marker(index, point.x, point.y),
            f'<text x="{label.left:.1f}" y="{label.bottom - 4:.1f}">{escape(subject["name"])}</text></g>',
        ]
    return "\n".join([*parts, "</svg>"])


def _point(x_axis: Axis, y_axis: Axis, subject: Data, content: Data, style: Data) -> Point:
    across, along = (
        tuple(sorted(axis.at(value) for value in _interval(subject, metric)))
        for axis, metric in ((x_axis, content), (y_axis, style))
    )
    return Point(x_axis.at(_mean(subject, content)), y_axis.at(_mean(subject, style)), across, along)


def marker(index: int, x: float = 0.0, y: float = 0.0) -> str:
    """A shape per subject, so that colour alone does not tell them apart."""
    shapes = ("M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M-4.6-4.6h9.2v9.2h-9.2z", "M0-6.2 6.2 0 0 6.2-6.2 0z",
              "M0-5.8 5.8 4.6h-11.6z", "M0 5.8-5.8-4.6h11.6z", "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z")  # fmt: skip
    return f'<path class="marker" transform="translate({x:.1f} {y:.1f})" d="{shapes[index % len(shapes)]}"/>'


def place_labels(points: Sequence[Point], names: Sequence[str]) -> list[Box]:
    """Boxes for names beside their points: inside the chart, off points, lines and each other if there is room."""
    taken = [box for point in points for box in point.boxes()]
    frame = Box(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    placed = []
    for point, name in zip(points, names, strict=True):
        candidates = _candidates(point.x, point.y, LETTER * len(name))
        best = min(candidates, key=partial(_trouble, frame=frame, taken=taken))  # the first of equals
        taken.append(best)
        placed.append(best)
    return placed


def _candidates(x: float, y: float, width: float) -> Iterator[Box]:
    """The corners, right, left, above, below; then the same farther off."""
    for reach in (REACH + 2, REACH + 10, REACH + 26):
        for across, along in ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1)):
            left = x + across * reach - width * (1 - across) / 2
            top = y + along * (reach + LINE / 2 - 2) - LINE / 2
            yield Box(left, top, left + width, top + LINE)


def _trouble(box: Box, frame: Box, taken: Sequence[Box]) -> int:
    """How many things a label lies on; the chart's border counts ten times."""
    inside = box.left >= frame.left and box.right <= frame.right and box.top >= frame.top and box.bottom <= frame.bottom
    return sum(map(box.meets, taken)) + (0 if inside else 10)


def _axis(subjects: Sequence[Data], metric: Data, start: float, end: float) -> Axis:
    values = [value for subject in subjects for value in (*_interval(subject, metric), _mean(subject, metric))]
    low, high = min(values), max(values)
    room = 0.07 * (high - low) or 0.07 * abs(high) or 1.0
    low, high = low - room, high + room
    return Axis(low, high, start, end) if metric["better"] == "higher" else Axis(high, low, start, end)


def _grid(x_axis: Axis, y_axis: Axis, x_title: str, y_title: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in x_axis.ticks():
        x = x_axis.at(value)
        parts += [
            f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>',
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>',
        ]
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>',
            f'<text class="tick" x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    return [
        *parts,
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>',
        f'<text class="axis" x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"content kept: {escape(x_title)} \u2192</text>",
        f'<text class="axis" transform="translate(20 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"style taken: {escape(y_title)} \u2192</text>",
    ]


def _mean(subject: Data, metric: Data) -> float:
    return float(subject["values"][metric["name"]]["mean"])


def _interval(subject: Data, metric: Data) -> tuple[float, float]:
    value = subject["values"][metric["name"]]
    return value["low"], value["high"]


def _told(subject: Data, *metrics: Data) -> str:
    numbers = ", ".join(f"{metric['title']} {_mean(subject, metric):.{metric['digits']}f}" for metric in metrics)
    return f"{subject['name']}: {numbers}"


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, at most about `most`.

    >>> round_numbers(0.03, 0.71, 7)
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    """
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.6g}") for index in range(first, last + 1)]
