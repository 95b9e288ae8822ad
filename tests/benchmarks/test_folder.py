"""The benchmark of a folder stylises all of it and measures rate and memory; tested with small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaattn_core import load_image
from benchmarks import folder


@pytest.mark.slow
def test_a_folder_of_pictures_is_stylised_and_measured(tmp_path: Path) -> None:
    folder.fill(tmp_path / "in", 20, 32)
    assert len(list((tmp_path / "in").iterdir())) == 20
    results = folder.measure_command(tmp_path)
    stylized = list((tmp_path / "out").iterdir())
    assert len(stylized) == results["pictures"] == 20
    assert all(load_image(path).shape == (1, 3, 32, 32) for path in stylized)
    early, peak = (value for key, value in results.items() if key.startswith("peak_gib"))
    assert 0 < early <= peak
    assert results["seconds_a_picture"] > 0


def test_the_rate_stands_beside_that_of_the_model_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def measured(function: str, _: Path) -> dict[str, float]:
        calls.append(function)
        return {"seconds_a_picture": {1: 1.0, 2: 1.5, 3: 2.0}[len(calls)]}

    monkeypatch.setattr(folder, "_run_in_process", measured)
    output = tmp_path / "folder.json"
    assert folder.main(["--pictures", "20", "--size", "32", "--output", str(output)]) == 0
    assert calls == ["measure_model", "measure_command", "measure_model"]
    assert json.loads(output.read_text())["of_the_model"] == 1.0
    assert "model_seconds_a_picture: [1.0, 2.0]" in capsys.readouterr().out


def test_too_few_pictures_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        folder.main(["--pictures", "19"])
    assert "--pictures is 19; 20 are needed" in capsys.readouterr().err
