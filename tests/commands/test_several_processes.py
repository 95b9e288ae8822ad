"""Several processes in one output folder: two runs by mistake, and the processes of one job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from adaattn_core import save_image, stylize
from adaattn_core.commands import stylize as stylize_command
from adaattn_core.runtime.signals import Terminated
from tests.helpers.command_line import OIL, call, run
from tests.helpers.small_models import picture

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="the locks are POSIX's")


@contextmanager
def another_run(*names: str, folder: str = "out") -> Iterator[int]:
    """The process id of another run that paints these results."""
    program = (
        "import sys, pathlib\nfrom adaattn_core.commands.shared.claims import claimed\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with claimed(folder, [folder / name for name in sys.argv[2:]]):\n    print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder, *names], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        yield other.pid
        other.kill()


def files(folder: str = "out") -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


@needs_locks
def test_a_second_run_with_the_same_results_is_refused_and_names_the_first(folder: Path, capsys: Capture) -> None:
    with another_run("sea.png", "hill.png") as process:
        before = files()
        assert call(f"stylize photos -o out {OIL}") == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert re.fullmatch(
            rf"adaattn: out is in use: process {process} on \S+ paints 2 of these 2 results, such as out/hill\.png\. "
            r"Wait until it has ended, name another folder, or start one run in several processes with torchrun\.\n",
            errors,
        )
        assert files() == before, "nothing is painted and nothing is left"
    run(f"stylize photos -o out {OIL}")
    assert files() == {"sea.png", "hill.png"}, "what a killed run leaves is gone"


@needs_locks
def test_runs_with_different_results_share_a_folder(folder: Path) -> None:
    with another_run("tree.png"):
        run(f"stylize photos -o out {OIL}")
        assert {"sea.png", "hill.png"} < files()


@needs_locks
def test_results_are_the_same_by_any_name_of_their_folder(folder: Path, capsys: Capture) -> None:
    Path("link").symlink_to("out")
    with another_run("sea.png", folder="link"):
        assert call(f"stylize photos -o {folder}/out {OIL}") == 2
    assert "paints 1 of these 2 results" in capsys.readouterr().err


@needs_locks
def test_results_that_are_done_are_nobodys(folder: Path) -> None:
    run(f"stylize photos/sea.png -o out {OIL}")
    with another_run("sea.png"):
        run(f"stylize photos -o out --resume {OIL}")
        assert {"sea.png", "hill.png"} < files()


@needs_locks
def test_a_clip_that_another_process_paints_is_refused(folder: Path, capsys: Capture) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
    pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')
    from tests.helpers.tiny_clips import frames, write_clip

    write_clip("in.mp4", frames(count=2), rate=8)
    with another_run("a.mp4") as process:
        assert call(f"video in.mp4 -o out/a.mp4 {OIL}") == 2
        assert f"out is in use: process {process} on " in capsys.readouterr().err
    run(f"video in.mp4 -o out/a.mp4 {OIL}")
    assert files() == {"a.mp4"}


def test_what_a_stopped_run_has_painted_and_how_to_go_on_is_one_line(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun terminates all processes when one is lost."""

    def stopped(model: object, content: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        if content.shape[-1] == 56:  # sea.png, after hill.png
            raise Terminated
        return stylize(model, content, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stylize_command, "stylize", stopped)
    line = "adaattn: terminated; the pictures that are done are in out. Run the same command with --resume to go on.\n"
    assert call(f"stylize photos -o out {OIL}") == 128 + signal.SIGTERM
    assert capsys.readouterr() == ("", line)
    assert files() == {"hill.png"}
    monkeypatch.setenv("WORLD_SIZE", "2")
    save_image(picture(40, 56, seed=9), "photos/i.png")  # between the two
    for rank, errors in (("0", line), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert call(f"stylize photos -o out {OIL}") == 128 + signal.SIGTERM, rank
        assert capsys.readouterr() == ("", errors), "one line for the job"


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_that_all_processes_meet_is_said_by_the_main_process(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """The others wait until torchrun ends them, and say it themselves if that does not happen."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")

    def ended(seconds: float) -> None:
        assert (rank, seconds) == (1, 10)
        raise Terminated

    monkeypatch.setattr("time.sleep", ended)
    code = call(f"stylize nowhere -o out {OIL}")
    line = "adaattn: nowhere does not exist. Check its name and folder.\n"
    assert (code, capsys.readouterr().err) == [(2, line), (143, "")][rank]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert (call(f"stylize nowhere -o out {OIL}"), capsys.readouterr().err) == (2, line)
