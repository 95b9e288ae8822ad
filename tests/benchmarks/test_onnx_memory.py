"""benchmarks/onnx_memory.py runs on one file and on two."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from adaattn_core.export.onnx_file import export_onnx
from tests.helpers.small_models import small_model

MISSING = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason='needs onnx and onnxruntime: pip install "adaattn[onnx]"')
def test_every_file_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = export_onnx(small_model(), tmp_path / "m.onnx", split=True).paths
    from benchmarks import onnx_memory  # needs onnxruntime

    assert onnx_memory.main([*map(str, paths), "--size", "32", "--style-size", "48", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(path) for path in paths]
    assert all("GiB" in line for line in lines)
