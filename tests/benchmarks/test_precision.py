"""The error of half precision by part of the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaattn_core import load_model
from benchmarks import precision


def test_each_part_is_rounded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CONTENTS", ("coffee",))
    monkeypatch.setattr(precision, "STYLES", ("auvers",))
    assert precision.main(["--size", "64", "-o", str(tmp_path / "found.json")]) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    mean = {row["part"]: row["mean"] for row in rows}
    assert len(mean) == len(precision.parts(load_model("compact"))) + 1
    assert all(0 < row["mean"] < row["largest"] for row in rows)
    assert mean["merge"] < mean["merge and decoder, but the last convolution"] < mean["everything"]
