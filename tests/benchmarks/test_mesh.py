"""The measure of checkerboard artefacts in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from adaattn_core.io.images import save_image
from benchmarks import mesh
from tests.helpers.small_models import picture


def test_a_mesh_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = F.interpolate(picture(9, 9, seed=1), size=(64, 64), mode="bilinear") / 2
    for folder, columns in (("plain", 0), ("mesh", 0.25)):
        (tmp_path / folder).mkdir()
        save_image(plain + columns * (torch.arange(64) % 4 == 0), tmp_path / folder / "one.png")
    assert mesh.main([str(tmp_path / "plain"), str(tmp_path / "mesh")]) == 0
    first, second = (float(line.split(": ")[1].split()[0]) for line in capsys.readouterr().out.splitlines())
    assert first < 0.15 < 0.4 < second


def test_a_folder_without_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mesh.main([str(tmp_path)])
    assert "holds no picture" in capsys.readouterr().err
