"""Output files are complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaattn_core.errors import OutputError
from adaattn_core.io.files import atomic_path


def test_atomic_path_is_complete_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "run.safetensors"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".safetensors" and temporary.name[0] == "."
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), RuntimeError("stop")])
def test_atomic_path_cleans_up_after_any_interruption(tmp_path: Path, interruption: BaseException) -> None:
    target = tmp_path / "a.mp4"
    target.write_text("old")
    with pytest.raises(type(interruption)), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise interruption
    assert list(tmp_path.iterdir()) == [target] and target.read_text() == "old"


def test_atomic_path_passes_on_errors_about_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.json"):
        (tmp_path / "other").read_text()
    nothing_written = pytest.raises(OutputError, match=r"a\.json cannot be written: No such file or directory")
    with nothing_written, atomic_path(tmp_path / "a.json"):
        pass
    assert not list(tmp_path.iterdir())
