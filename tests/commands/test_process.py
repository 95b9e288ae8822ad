"""The command line as a process: signals, closed standard streams, and Ctrl-C while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.command_line import OIL
from tests.helpers.tiny_clips import frames, write_clip

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and descriptors are those of POSIX")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WAIT = 120
"""Seconds after which something hangs, on a machine with other work."""


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adaattn_core", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + WAIT
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".adaattn-*")]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_nothing_of_a_clip(folder: Path, number: int, code: int) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
    pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')
    write_clip("in.mp4", frames(count=200), rate=8)
    process = start("video", "in.mp4", "-o", "out/a.mp4", *OIL.split())
    wait_for(lambda: temporaries(folder), process)
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(number)  # as timeout and terminals do
    output, errors = process.communicate(timeout=WAIT)
    assert process.returncode == code, errors
    assert (output, errors) == ("", f"adaattn: {'interrupted' if number == signal.SIGINT else 'terminated'}\n")
    assert list(Path("out").iterdir()) == []


@pytest.mark.slow
def test_leftovers_of_a_clip_that_was_killed_are_removed_by_the_next_run(folder: Path) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
    pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')
    write_clip("in.mp4", frames(count=200), rate=8)
    process = start("video", "in.mp4", "-o", "out/a.mp4", *OIL.split())
    wait_for(lambda: temporaries(folder), process)
    process.kill()
    process.communicate()
    assert len(temporaries(folder)) == 1
    process = start("video", "in.mp4", "-o", "out/a.mp4", "--seconds", ".3", *OIL.split())
    assert process.wait(timeout=WAIT) == 0, process.communicate()
    process.communicate()
    assert [path.name for path in Path("out").iterdir()] == ["a.mp4"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the mapped files of a process are shown on Linux")
def test_ctrl_c_while_the_program_starts_gives_one_line() -> None:
    process = start("info")
    wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, output, errors) == (130, "", "adaattn: interrupted\n")


@pytest.mark.parametrize(
    "closed",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("2>&-", ">&-", "<&-")),
        "<&- >&- 2>&-",
    ],
)
def test_closed_standard_streams_end_no_run(folder: Path, closed: str) -> None:
    line = f'"{sys.executable}" -m adaattn_core stylize photos -o out {OIL} {closed}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=ENVIRONMENT, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert {path.name for path in Path("out").iterdir()} == {"hill.png", "sea.png"}
