"""The benchmark of attention: pruned and full attention agree, and a difference would be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adaattn_core.checkpoints.model_file import load_model
from benchmarks import attention


def test_pruned_and_full_attention_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "attention.json"
    assert attention.main(["--size", "48", "--repeats", "1", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["content"], row["style"]) for row in rows] == list(attention.PAIRS)
    for row in rows:
        assert row["ratio"] > 0
        assert 0 < row["kept"] <= 1
        assert row["mean_error_largest"] < 1e-4 and row["std_error_largest"] < 1e-3
    assert capsys.readouterr().out.count("kept") == len(rows)


@torch.no_grad()
def test_an_error_is_measured() -> None:
    query, style = attention.prepare(load_model("compact"), "relu4_1", "coffee", "great_wave", 48)
    mean, std = attention.full_attention(query, style.key, style.value, style.value_variance)
    other, _ = attention.full_attention(query * 2, style.key, style.value, style.value_variance)
    assert (mean - other).abs().max() > 1e-3 and bool((std >= 0).all())


def test_kept_share_of_peaked_and_flat_attention() -> None:
    points = 4 * torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert attention.kept_share(points / 20, points / 20) == 1
    assert attention.kept_share(4 * points, points) < 0.9


def test_an_unknown_level_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        attention.main(["--level", "relu9_1"])
    assert "unknown level 'relu9_1'; this model attends at relu3_1, relu4_1, relu5_1" in capsys.readouterr().err
