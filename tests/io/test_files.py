"""Output files are complete or absent."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adaattn_core.errors import OutputError
from adaattn_core.io.files import RUNNING, atomic_path, check_output_path, remove_leftovers, sole_writer


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


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a.png"
    target.write_text("old")
    target.chmod(mode)
    with atomic_path(target) as temporary:
        assert not stat.S_IMODE(temporary.stat().st_mode) & ~mode & 0o077, "nobody else may read it in the meantime"
        temporary.write_text("new")
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("new", mode)


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(f"sync {os.fstat(descriptor).st_size}"))
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert done == ["sync 3", "rename"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks of folders")
def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".adaattn-0a1b.mp4", ".adaattn-artfid/0.png", ".other", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".other", "a.png"}
    remove_leftovers(tmp_path / "none")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks of folders")
def test_the_temporary_file_of_a_running_process_is_no_leftover(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_text("new")
        remove_leftovers(tmp_path)
        assert temporary.exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no named pipes")
def test_a_pipe_gets_the_complete_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source, sink = os.pipe()
    with atomic_path(f"/dev/fd/{sink}") as temporary:
        temporary.write_text("new")
    os.close(sink)
    with open(source) as file:
        assert file.read() == "new"
    with atomic_path("/dev/null") as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=rf"/dev/fd/{sink} is not open\. Redirect it, or name a file\."):
        check_output_path(f"/dev/fd/{sink}")


def test_a_name_that_is_too_long_is_known_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"has a name of 256 bytes; at most 255 fit there\. Choose a shorter name\."):
        check_output_path(tmp_path / ("é" * 126 + ".png"))


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is POSIX's")
def test_a_folder_has_one_writer_until_its_process_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = (
        "import sys, pathlib\nfrom adaattn_core.io.files import sole_writer\n"
        "with sole_writer(pathlib.Path(sys.argv[1]), 'trains'):\n    print('in', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        refused = pytest.raises(OutputError, match=f"run is in use: process {other.pid} on .* trains there. Wait until")
        with refused, sole_writer(folder, "trains"):
            pytest.fail("two processes write one folder")
        other.kill()
    with sole_writer(folder, "trains"):
        assert (folder / RUNNING).read_text().startswith(f"process {os.getpid()} on ")
    assert list(folder.iterdir()) == []
