"""The benchmark of large pictures: jobs keep their limits, results are reported; tested with small pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import adaattn_core
from benchmarks import large

NUMBERS = {"peak_gib": 5.0, "above_torch_gib": 4.5, "limit_gib": 8.0, "seconds": 1.0, "threads": 1}


def test_a_job_passes_its_memory_limit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    stylize = adaattn_core.stylize

    def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        limits.append((args[1].shape, args[2].shape, options["max_memory_gb"]))
        return stylize(*args, **options)

    monkeypatch.setattr("adaattn_core.stylize", watched)
    results = large.stylize_job(large.Job("compact", (32, 48), (16, 16), 8.0), None)
    assert limits == [((1, 3, 32, 48), (1, 3, 16, 16), 8.0)]
    assert results["peak_gib"] > results["above_torch_gib"] >= 0
    assert results["limit_gib"] == 8.0


@pytest.mark.parametrize(("peak", "code"), [(5.0, 0), (9.0, 1)])
def test_all_jobs_are_reported_and_an_exceeded_limit_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, peak: float, code: int
) -> None:
    monkeypatch.setattr(large, "_run_in_process", lambda name, weights: {**NUMBERS, "peak_gib": peak})
    output = tmp_path / "large.json"
    assert large.main(["--only", "reference-1024,4k", "--output", str(output)]) == code
    assert list(json.loads(output.read_text())) == ["reference-1024", "4k"]
    assert f"4k: peak_gib {peak}, above_torch_gib 4.5, limit_gib 8.0" in capsys.readouterr().out


def test_an_unknown_job_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        large.main(["--only", "16k"])
    assert "unknown job '16k'; known are reference-1024, 1024, 2048, 4k, 8k, start" in capsys.readouterr().err
