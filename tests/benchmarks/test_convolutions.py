"""Winograd's convolutions beside the direct ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import convolutions


def test_seconds_and_rounding_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(convolutions, "SHAPES", ((64, 16), (96, 20)))
    assert convolutions.main(["--rows", "16", "-o", str(tmp_path / "found.json")]) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["channels"], row["columns"]) for row in rows] == [(64, 16), (96, 20)]
    assert all(row["winograd"] > 0 and 0 < row["direct_error"] < row["winograd_error"] < 1e-4 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 3
