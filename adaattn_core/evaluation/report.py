"""report.html: one file that any browser shows, without other files and without a connection.

The page is templates/report.html.j2, filled with the data of report.json (see `summary`), charts and thumbnails.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OutputError
from .scatter_plot import MARKERS, has_matplotlib, scatter_svg
from .summary import not_measured

TEMPLATES = Path(__file__).parent / "templates"
SIDES = {"style": "style taken", "content": "content kept", "both": "both"}
NO_CHART = "The report has no chart: matplotlib is not installed. Install it: pip install matplotlib"

Data = Mapping[str, Any]


@dataclass
class Example:
    """A pair as shown: data URIs of the content, the style, and each method's picture, with a caption below each.

    Args:
        aspect_ratio: width over height of the content.
    """

    name: str
    aspect_ratio: float
    pictures: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def add(self, picture: str, caption: str) -> None:
        self.pictures.append(picture)
        self.captions.append(caption)


class Row(NamedTuple):
    """A method in the tables: its data, and the CSS variable and the character of its marker in the chart."""

    subject: Data
    color: str
    marker: str
    is_reference: bool


class Chart(NamedTuple):
    """The chart of two metrics: their names, and inline SVG."""

    x: str
    y: str
    svg: str


def check_template_engine() -> None:
    """Raises an OutputError where jinja2, which PyTorch requires as well, is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise OutputError("report.html needs the package jinja2, which is not installed. Run: pip install jinja2")


def render(report: Data, examples: Sequence[Example]) -> str:
    """The whole page.

    Args:
        report: from `summary.summarize`.
        examples: pairs to show; pictures of each: content, style, then the methods that are not baselines.
    """
    check_template_engine()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    rows = [_row(index, subject) for index, subject in enumerate(report["subjects"])]
    compared = [row for row in rows if not row.is_reference]
    measured = [metric for metric in report["metrics"] if not metric["missing"]]
    chart_metrics = {side: [m for m in measured if m["side"] == side] for side in ("content", "style")}
    charts = _charts(rows, chart_metrics) if has_matplotlib() else []
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2").render(
        report=report,
        title="Evaluation: " + ", ".join(row.subject["name"] for row in compared),
        summary=_summary(report),
        rows=rows,
        compared=compared,
        metric_groups=[(title, [m for m in report["metrics"] if m["side"] == side]) for side, title in SIDES.items()],
        best={metric["name"]: _best(compared, metric) for metric in report["metrics"]},
        difference_metrics=[metric for metric in measured if metric["name"] in compared[0].subject["to_first"]],
        notes=_notes(report),
        charts=[chart._replace(svg=Markup(chart.svg)) for chart in charts],  # noqa: S704 (scatter_svg escapes names)
        chart_metrics=chart_metrics,
        examples=examples,
        settings={**report["settings"], **{f"row {s['name']}": s["source"] or s["kind"] for s in report["subjects"]}},
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 (a file of this package)
        js=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),  # noqa: S704
    )


def _summary(report: Data) -> str:
    contents, styles = ({pair[index] for pair in report["pairs"]} for index in (0, 1))
    settings = report["settings"]
    size = f", reduced to {settings['size']} pixels on the short side" if settings.get("size") else ""
    return (
        f"{len(report['pairs'])} pairs of {len(contents)} contents and {len(styles)} styles{size}. "
        f"{settings.get('made', '')}"
    )


def _row(index: int, subject: Data) -> Row:
    is_reference = subject["kind"] == "reference"
    marker = MARKERS[index % len(MARKERS)]
    color = "muted" if is_reference else f"s{index % 8}"
    return Row(subject, color, marker.hollow if is_reference else marker.filled, is_reference)


def _best(compared: Sequence[Row], metric: Data) -> float | None:
    """The best mean of a column; None with fewer than two values."""
    values = [row.subject["values"] for row in compared]
    means = [value[metric["name"]]["mean"] for value in values if metric["name"] in value]
    if len(means) < 2:
        return None
    return float(max(means) if metric["better"] == "higher" else min(means))


def _notes(report: Data) -> list[str]:
    notes = not_measured(report)
    count = len(report["pairs"])
    for subject in report["subjects"]:
        if subject["resized"]:
            notes.append(f"{subject['resized']} of {count} pictures of {subject['name']} were resized.")
    notes += [f"{pairs} pair(s) left out: {reason}" for reason, pairs in report["broken"].items()]
    return notes if has_matplotlib() else [*notes, NO_CHART]


def _charts(rows: Sequence[Row], metrics: Mapping[str, Sequence[Data]]) -> list[Chart]:
    """A chart for each content metric and each style metric; the page shows one of them at a time."""
    subjects, colors = [row.subject for row in rows], [row.color for row in rows]
    return [
        Chart(x["name"], y["name"], scatter_svg(subjects, colors, x, y))
        for x in metrics["content"]
        for y in metrics["style"]
    ]
