"""Exact attention with key pruning beside the full attention matrix at one level: time, share of keys, rounding error.

    python -m benchmarks.attention [--weights FILE] [--level relu3_1] [--size 512] [-o attention.json]

FILE is a model (default: the built-in one). Contents and styles are pictures of examples/ at SIZE x SIZE. "kept" is the
share of style positions left after pruning, 1 where attention is too flat to prune. Errors are differences from float64
on every 37th content position, relative to the standard deviation of the values: those of pruned attention, and the
largest of the full matrix in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adaattn_core import load_image, load_model
from adaattn_core.models.attention import AdaAttention, StyleKV, stacked_key
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.key_pruning import KeyPruner, is_flat
from adaattn_core.ops.moments import attention_moments
from adaattn_core.ops.resize import resize_image

EXAMPLES = Path(__file__).parents[1] / "examples"
PAIRS = (("coffee", "great_wave"), ("astronaut", "composition_viii"), ("chelsea", "auvers"))
BLOCK_ROWS = 1024
CHECKED = slice(None, None, 37)


class AttentionInput(NamedTuple):
    """Query (1, Nc, P), and the keys, values and value_variance of a style."""

    query: Tensor
    style: StyleKV


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--weights", default="compact", metavar="FILE")
    parser.add_argument("--level", default="relu3_1")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    model = load_model(args.weights)
    if args.level not in model.config.levels:
        parser.error(f"unknown level {args.level!r}; this model attends at {', '.join(model.config.levels)}")
    rows = []
    for content, style in PAIRS:
        row = measure(prepare(model, args.level, content, style, args.size), args.repeats)
        rows.append({"content": content, "style": style, "level": args.level, "size": args.size, **row})
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.output:
        numbers = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        args.output.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


@torch.no_grad()
def prepare(model: StyleTransferModel, level: str, content: str, style: str, size: int) -> AttentionInput:
    """Queries of one picture of examples/, keys and values of another."""
    content_features, style_features = (
        model.encode(resize_image(load_image(EXAMPLES / f"{name}.jpg"), size=(size, size))) for name in (content, style)
    )
    attention = model.fusion.attention[level]
    assert isinstance(attention, AdaAttention)
    return AttentionInput(
        attention.query(stacked_key(content_features, level)), model.fusion.encode_style(style_features)[level]
    )


@torch.no_grad()
def measure(inputs: AttentionInput, repeats: int) -> dict[str, Any]:
    """Time of both methods, the fastest of `repeats`, and their differences from float64."""
    query, (key, value, _, value_variance) = inputs
    full_seconds = _fastest(lambda: full_attention(query, key, value, value_variance), repeats)
    pruned_seconds = _fastest(lambda: attention_moments(query, key, value, value_variance=value_variance), repeats)
    checked, variance64 = query[:, CHECKED], None if value_variance is None else value_variance.double()
    exact = full_attention(checked.double(), key.double(), value.double(), variance64)
    pruned = [x[:, CHECKED] for x in attention_moments(query, key, value, value_variance=value_variance)]
    errors = [(a - b).abs() / value.std() for a, b in zip(pruned, exact, strict=True)]
    full = full_attention(checked, key, value, value_variance)
    full_errors = [(a - b).abs() / value.std() for a, b in zip(full, exact, strict=True)]
    return {
        "whole_seconds": round(full_seconds, 3),
        "seconds": round(pruned_seconds, 3),
        "ratio": round(pruned_seconds / full_seconds, 3),
        "kept": round(kept_share(query[0], key[0]), 3),
        **{
            f"{name}_error_{kind}": float(f"{number:.2g}")
            for name, error in zip(("mean", "std"), errors, strict=True)
            for kind, number in (("mean", float(error.mean())), ("largest", float(error.max())))
        },
        **{
            f"whole_{name}_error_largest": float(f"{float(error.max()):.2g}")
            for name, error in zip(("mean", "std"), full_errors, strict=True)
        },
    }


def _fastest(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def kept_share(query: Tensor, key: Tensor) -> float:
    """Mean share of the style positions that a group of queries computes with."""
    if is_flat(query, key):
        return 1.0
    pruner = KeyPruner(query, key)
    if not pruner.is_worthwhile():
        return 1.0
    return sum(len(pruner.candidates(group)) for group in pruner.groups) / len(pruner.groups) / len(key)


def full_attention(query: Tensor, key: Tensor, value: Tensor, value_variance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for each query from the full attention matrix, BLOCK_ROWS rows at a time."""
    center = value.mean(dim=1, keepdim=True)
    centered = value - center
    squares = centered.square() if value_variance is None else centered.square() + value_variance
    both, means, stds = torch.cat([centered, squares], dim=-1), [], []
    for rows in torch.split(query, BLOCK_ROWS, dim=1):
        mean, square = ((rows @ key.transpose(1, 2)).softmax(dim=-1) @ both).chunk(2, dim=-1)
        means.append(mean + center)
        stds.append((square - mean.square()).clamp_min(0).sqrt())
    return torch.cat(means, dim=1), torch.cat(stds, dim=1)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # as for the reference in adaattn bench; threads started later inherit it
    sys.exit(main())
