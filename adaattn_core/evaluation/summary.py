"""The results of an evaluation as the plain data of report.json: means, intervals, differences, settings."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .methods import Method, Pair
from .metric_suite import METRICS
from .metrics import bootstrap_interval
from .picture_statistics import PictureSet, decode_statistics
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
    columns = [list(records) for records in zip(*complete.values(), strict=True)]  # one for each method
    names, values = _per_picture_values(evaluation, list(complete), columns)
    defined = ~torch.stack(values).isnan().all(dim=0)  # (pairs, metrics)
    counts = dict(zip(names, defined.sum(dim=0).tolist(), strict=True))
    subjects = [
        _describe_method(method, records)
        | {"peak_gib": peaks_gib.get(method.name)}
        | {"values": _means(names, numbers, defined, seed) | _overall(method, overall)}
        | {"to_first": _means(names, numbers - values[0], defined, seed, wins=True)}
        for method, records, numbers in zip(evaluation.methods, columns, values, strict=True)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {**settings, "torch": torch.__version__, "machine": platform.machine()},
        "metrics": [_describe_metric(name, evaluation.suite.missing, counts) for name in METRICS],
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


def _per_picture_values(
    evaluation: Evaluation, pairs: Sequence[Pair], columns: Sequence[Sequence[Record]]
) -> tuple[list[str], list[Tensor]]:
    """The metrics that have a value for each picture, and these values for each method, (pairs, metrics).

    NaN stands where a metric that compares pictures with each other is undefined.
    """
    single, relations = evaluation.suite.metrics, evaluation.suite.relations
    values = []
    for records in columns:
        rows = torch.tensor([[record["values"][name] for name in single] for record in records], dtype=torch.float64)
        related = _relate(evaluation, pairs, records, relations) if relations else []
        values.append(torch.cat([rows, *(column.double()[:, None] for column in related)], dim=1))
    return [*single, *relations], values


def _relate(
    evaluation: Evaluation, pairs: Sequence[Pair], records: Sequence[Record], relations: Sequence[str]
) -> list[Tensor]:
    """The values (pairs,) of one method for each of the metrics that compare pictures with each other."""
    network = evaluation.suite.networks.vgg19_normalized
    assert network is not None, "without the network the suite leaves these metrics out"
    styles = {pair.style: evaluation.records.by_key[evaluation.style_key(pair)]["statistics"] for pair in pairs}
    pictures = PictureSet(
        decode_statistics([record["statistics"] for record in records], network.channels),
        decode_statistics(list(styles.values()), network.channels),
        _indices([pair.content for pair in pairs]),
        _indices([pair.style for pair in pairs]),
    )
    return [relate(pictures) for name in relations if (relate := METRICS[name].relate)]


def _indices(paths: Sequence[Path]) -> Tensor:
    """The index of each path among the different ones, in the order of their first appearance."""
    numbers = {path: index for index, path in enumerate(dict.fromkeys(paths))}
    return torch.tensor([numbers[path] for path in paths], dtype=torch.int64)


def _describe_metric(name: str, missing: Mapping[str, str], counts: Mapping[str, int]) -> dict[str, Any]:
    """A metric as report.json has it; "pairs" is the number of pairs where it is defined, None if it is not measured.

    Args:
        missing: metric -> why it is not measured.
        counts: metric -> number of pairs where it is defined.
    """
    metric = METRICS[name]
    reason = metric.undefined if counts.get(name) == 0 else None
    return {
        "name": name,
        "title": metric.title,
        "side": metric.side,
        "better": "higher" if metric.higher_is_better else "lower",
        "about": metric.about,
        "digits": metric.digits,
        "missing": missing.get(name, reason),
        "pairs": counts.get(name) or None,
        "undefined": metric.undefined,
    }


def _means(
    names: Sequence[str], values: Tensor, defined: Tensor, seed: int, wins: bool = False
) -> dict[str, dict[str, float]]:
    """Metric -> mean and interval of its column, over the pairs where it is defined; without a metric that never is.

    Args:
        values: (pairs, metrics).
        defined: (pairs, metrics), whether the metric is defined.
        wins: the values are differences; also give the share of pairs where the difference is an improvement.
    """
    means = {}
    for rows, columns in _defined_blocks(defined):
        block = values[rows][:, columns]
        generator = torch.Generator().manual_seed(seed)
        low, high = bootstrap_interval(block, generator, resamples=RESAMPLES, confidence=CONFIDENCE)
        for index, name in enumerate(names[column] for column in columns):
            column = block[:, index]
            means[name] = {"mean": float(column.mean()), "low": float(low[index]), "high": float(high[index])}
            if wins:
                better = column > 0 if METRICS[name].higher_is_better else column < 0
                means[name]["won"] = float(better.double().mean())
    return means


def _defined_blocks(defined: Tensor) -> Iterator[tuple[Tensor, list[int]]]:
    """Mask of pairs and list of metrics, for the metrics that are defined at the same pairs, at least one."""
    blocks: dict[tuple[bool, ...], list[int]] = {}
    for column in range(defined.shape[1]):
        blocks.setdefault(tuple(defined[:, column].tolist()), []).append(column)
    for columns in blocks.values():
        rows = defined[:, columns[0]]
        if bool(rows.any()):
            yield rows, columns


def not_measured(report: Mapping[str, Any]) -> list[str]:
    """A line for each reason why metrics or intervals are missing, or a metric was measured at some pairs only."""
    reasons: dict[str, list[str]] = {}
    for metric in report["metrics"]:
        if metric["missing"]:
            reasons.setdefault(metric["missing"], []).append(metric["title"])
    lines = [f"not measured: {', '.join(titles)} ({reason})" for reason, titles in reasons.items()]
    total = len(report["pairs"])
    for metric in report["metrics"]:
        if metric["pairs"] not in (None, total):
            lines.append(f"{metric['title']} is measured on {metric['pairs']} of {total} pairs: {metric['undefined']}")
    if total == 1:
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
