"""What an evaluation found, as the plain data of report.json: means, intervals, differences, settings."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .metric_suite import METRICS
from .metrics import bootstrap_interval
from .runner import Evaluation, Record

FORMAT, VERSION = "adaattn-evaluation", 1
CONFIDENCE, RESAMPLES = 0.95, 2000


def summarize(
    evaluation: Evaluation,
    seed: int,
    peaks_gib: Mapping[str, float | None],
    art_fids: Mapping[str, float],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The report as data.

    Args:
        evaluation: after its run.
        seed: of the intervals.
        peaks_gib: subject name -> peak memory, for those that are known.
        art_fids: subject name -> ArtFID, where it was computed.
        settings: what to say of how this report was made.

    Raises:
        ValueError: no pair has numbers of every subject.
    """
    complete = evaluation.complete()
    if not complete:
        reason = next(iter(evaluation.broken.values()), "nothing was measured")
        raise ValueError(f"none of the {len(evaluation.pairs)} pairs could be judged, the first because {reason}")
    columns = [list(records) for records in zip(*complete.values(), strict=True)]  # one for each subject
    names = evaluation.panel.metrics
    values = [torch.tensor([[r["values"][n] for n in names] for r in c], dtype=torch.float64) for c in columns]
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {**settings, "torch": torch.__version__, "machine": platform.machine()},
        "metrics": [_about(name, evaluation.panel.missing.get(name)) for name in METRICS],
        "pairs": [[pair.content.stem, pair.style.stem] for pair in complete],
        "broken": dict(Counter(evaluation.broken.values())),
        "intervals": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": seed, "over": "pairs"},
        "subjects": [
            {
                "name": subject.name,
                "kind": subject.kind,
                "source": getattr(subject, "source", ""),
                "resized": sum(record["resized"] for record in column),
                "seconds": _median_seconds(column),
                "peak_gib": peaks_gib.get(subject.name),
                "values": _means(names, found, seed) | _art_fid(art_fids.get(subject.name)),
                "to_first": _means(names, found - values[0], seed, wins=True),
            }
            for subject, column, found in zip(evaluation.subjects, columns, values, strict=True)
        ],
    }


def _about(name: str, missing: str | None) -> dict[str, Any]:
    metric = METRICS[name]
    return {
        "name": name,
        "title": metric.title,
        "side": metric.side,
        "better": "higher" if metric.higher_is_better else "lower",
        "about": metric.about,
        "digits": metric.digits,
        "missing": missing,
    }


def _means(names: Sequence[str], values: Tensor, seed: int, wins: bool = False) -> dict[str, dict[str, float]]:
    """Metric -> mean and interval of (pairs, metrics); `wins`: the values are differences, and how many are better."""
    low, high = bootstrap_interval(
        values, torch.Generator().manual_seed(seed), resamples=RESAMPLES, confidence=CONFIDENCE
    )
    found = {}
    for index, name in enumerate(names):
        column = values[:, index]
        found[name] = {"mean": float(column.mean()), "low": float(low[index]), "high": float(high[index])}
        if wins:
            better = column > 0 if METRICS[name].higher_is_better else column < 0
            found[name]["won"] = float(better.double().mean())
    return found


def _art_fid(value: float | None) -> dict[str, dict[str, float]]:
    return {} if value is None else {"artfid": {"mean": value}}


def _median_seconds(records: Sequence[Record]) -> float | None:
    seconds = [record["seconds"] for record in records if record["seconds"] is not None]
    return statistics.median(seconds) if seconds else None


def not_measured(report: Mapping[str, Any]) -> list[str]:
    """A line for each reason why metrics are missing, or intervals are."""
    reasons: dict[str, list[str]] = {}
    for metric in report["metrics"]:
        if metric["missing"]:
            reasons.setdefault(metric["missing"], []).append(metric["title"])
    lines = [f"not measured: {', '.join(titles)} ({reason})" for reason, titles in reasons.items()]
    if len(report["pairs"]) == 1:
        lines.append("not measured: intervals (one pair says nothing of others; they need two or more)")
    return lines


def table(report: Mapping[str, Any]) -> str:
    """The report's numbers for a terminal: means, and half the width of their intervals.

    Columns are as wide as their titles need.
    """
    metrics = [metric for metric in report["metrics"] if not metric["missing"]]
    titles = ["", *(metric["title"] for metric in metrics), "s/picture", "peak GiB"]
    rows = [titles]
    for subject in report["subjects"]:
        cells = [_cell(subject["values"].get(metric["name"]), metric["digits"]) for metric in metrics]
        rows.append([subject["name"], *cells, _number(subject["seconds"]), _number(subject["peak_gib"])])
    widths = [max(len(row[index]) for row in rows) for index in range(len(titles))]
    lines = [
        "  ".join(cell.rjust(width) if index else cell.ljust(width)
                  for index, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(value: Mapping[str, float] | None, digits: int) -> str:
    if value is None:
        return "-"
    spread = f" ±{(value['high'] - value['low']) / 2:.{digits}f}" if "low" in value else ""
    return f"{value['mean']:.{digits}f}{spread}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
