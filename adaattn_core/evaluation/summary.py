"""The results of an evaluation as the plain data of report.json: means, intervals, differences, settings."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .methods import Method
from .metric_suite import METRICS
from .metrics import bootstrap_interval
from .runner import Evaluation, Record

FORMAT, VERSION = "adaattn-evaluation", 1
CONFIDENCE, RESAMPLES = 0.95, 2000


def summarize(
    evaluation: Evaluation,
    seed: int,
    peaks_gib: Mapping[str, float | None],
    overall: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The data of report.json.

    Args:
        evaluation: after its run.
        seed: seed of the bootstrap intervals.
        peaks_gib: method name -> peak memory, for the methods where it is known.
        overall: metric -> method name -> value, for metrics of all pictures together (ArtFID).
        settings: settings of the run, shown at the end of the report.

    Raises:
        ValueError: no pair was measured for every method.
    """
    complete = evaluation.complete()
    if not complete:
        reason = next(iter(evaluation.unreadable.values()), "nothing was measured")
        raise ValueError(f"none of the {len(evaluation.pairs)} pairs could be measured, the first because {reason}")
    names, missing = evaluation.suite.metrics, evaluation.suite.missing
    columns = [list(records) for records in zip(*complete.values(), strict=True)]  # one for each method
    values = [torch.tensor([[r["values"][n] for n in names] for r in c], dtype=torch.float64) for c in columns]
    subjects = [
        _describe_method(method, records)
        | {"peak_gib": peaks_gib.get(method.name), "values": _means(names, numbers, seed) | _overall(method, overall)}
        | {"to_first": _means(names, numbers - values[0], seed, wins=True)}
        for method, records, numbers in zip(evaluation.methods, columns, values, strict=True)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {**settings, "torch": torch.__version__, "machine": platform.machine()},
        "metrics": [_describe_metric(name, missing.get(name)) for name in METRICS],
        "pairs": [[pair.content.stem, pair.style.stem] for pair in complete],
        "broken": dict(Counter(evaluation.unreadable.values())),
        "intervals": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": seed, "over": "pairs"},
        "subjects": subjects,
    }


def _describe_method(method: Method, records: Sequence[Record]) -> dict[str, Any]:
    seconds = [record["seconds"] for record in records if record["seconds"] is not None]
    return {
        "name": method.name,
        "kind": method.kind,
        "source": getattr(method, "source", ""),
        "resized": sum(record["resized"] for record in records),
        "seconds": statistics.median(seconds) if seconds else None,
    }


def _overall(method: Method, values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {"mean": of[method.name]} for name, of in values.items() if method.name in of}


def _describe_metric(name: str, missing: str | None) -> dict[str, Any]:
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
    """Metric -> mean and interval of its column.

    Args:
        values: (pairs, metrics).
        wins: the values are differences; also give the share of pairs where the difference is an improvement.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = bootstrap_interval(values, generator, resamples=RESAMPLES, confidence=CONFIDENCE)
    means = {}
    for index, name in enumerate(names):
        column = values[:, index]
        means[name] = {"mean": float(column.mean()), "low": float(low[index]), "high": float(high[index])}
        if wins:
            better = column > 0 if METRICS[name].higher_is_better else column < 0
            means[name]["won"] = float(better.double().mean())
    return means


def not_measured(report: Mapping[str, Any]) -> list[str]:
    """A line for each reason why metrics or intervals are missing."""
    reasons: dict[str, list[str]] = {}
    for metric in report["metrics"]:
        if metric["missing"]:
            reasons.setdefault(metric["missing"], []).append(metric["title"])
    lines = [f"not measured: {', '.join(titles)} ({reason})" for reason, titles in reasons.items()]
    if len(report["pairs"]) == 1:
        lines.append("not measured: intervals (they need at least two pairs)")
    return lines


def table(report: Mapping[str, Any]) -> str:
    """The report as a text table for a terminal: means, and half the width of their intervals."""
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
