"""Many pictures: read ahead, written behind, shared out, and taken up again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import save_image, save_model, stylize
from adaattn_core.cli import main
from adaattn_core.runtime.prefetch import prefetch_map
from tests.helpers.small_models import picture, small_model

Capture = pytest.CaptureFixture[str]
WAIT = 10.0
"""Seconds after which a test gives up on a thread."""


# ---------------------------------------------------------------- the threads


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_everything_is_done_once_and_in_order(ahead: int) -> None:
    written: list[int] = []

    def write(job: int, made: int) -> str:
        time.sleep(0.002 * (job % 3))
        written.append(made)
        return str(made)

    done = list(prefetch_map(range(8), lambda job: job * job, lambda job, read: read + job, write, ahead))
    assert written == [job * job + job for job in range(8)]
    assert done == [(job, str(job * job + job)) for job in range(8)]


def test_reading_and_writing_go_on_during_the_work() -> None:
    """The second job is read, and the first one written, while the work on the second one (the first) waits."""
    read, written = [threading.Event() for _ in range(3)], [threading.Event() for _ in range(3)]

    def work(job: int, _: None) -> None:
        assert job == 2 or read[job + 1].wait(WAIT), "the next one is read during the work"
        assert job == 0 or written[job - 1].wait(WAIT), "the one before is written during the work"

    list(prefetch_map(range(3), lambda job: read[job].set(), work, lambda job, _: written[job].set()))


def test_few_jobs_wait_at_any_time() -> None:
    """So memory does not grow with the folder, also where the writing is slowest."""
    waiting: set[str] = set()
    most = 0

    def hold(name: str) -> None:
        nonlocal most
        waiting.add(name)
        most = max(most, len(waiting))

    def read(job: int) -> int:
        hold(f"read {job}")
        return job

    def work(job: int, _: int) -> int:
        waiting.discard(f"read {job}")
        hold(f"made {job}")
        return job

    def write(job: int, _: int) -> None:
        time.sleep(0.005)
        waiting.discard(f"made {job}")

    for _ in prefetch_map(range(30), read, work, write, ahead=2):
        pass
    assert 3 <= most <= 2 + 2 + 1  # read ahead, made, and the one that is worked on


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_made_is_written_before_an_error_ends_it(error: type[BaseException]) -> None:
    written: list[int] = []

    def work(job: int, _: int) -> int:
        if job == 2:
            raise error
        return job

    def write(job: int, _: int) -> None:
        time.sleep(0.02)
        written.append(job)

    with pytest.raises(error):
        list(prefetch_map(range(100), lambda job: job, work, write))
    assert written == [0, 1]


@pytest.mark.parametrize("step", ["read", "write"])
def test_errors_of_the_threads_are_raised_here(step: str) -> None:
    def fail(job: int, *_: int) -> int:
        if job == 3:
            raise OSError("disk full")
        return job

    def plain(job: int, *_: int) -> int:
        return job

    read, write = (fail if name == step else plain for name in ("read", "write"))
    with pytest.raises(OSError, match="disk full"):
        list(prefetch_map(range(100), read, plain, write))


# ---------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos/0.png to 5.png, style.png, m.safetensors, and out/ for results."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "out"):
        Path(name).mkdir()
    for index in range(6):
        save_image(picture(20, 24, seed=index), f"photos/{index}.png")
    save_image(picture(24, 24, seed=9), "style.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


COMMAND = "stylize photos --style style.png -o out --model m.safetensors --device cpu"


def made() -> list[str]:
    """All that lies in out/, hidden files too."""
    return sorted(os.listdir("out"))


def count_paintings(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda number: None) -> list[int]:
    """The list that grows by one with each picture painted, after `before` was called with its number."""
    painted: list[int] = []

    def counted(*args: object, **options: object) -> Tensor:
        before(len(painted))
        painted.append(len(painted))
        return stylize(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("adaattn_core.commands.stylize.stylize", counted)
    return painted


def test_a_broken_file_in_the_middle_is_told_at_the_end(folder: Path, capsys: Capture) -> None:
    Path("photos/2.png").write_bytes(Path("photos/1.png").read_bytes()[:100])
    assert main(shlex.split(COMMAND)) == 2
    assert made() == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    line = (
        "adaattn: 1 of 6 pictures failed, the others are done. The first failure: photos/2.png is damaged or cut short"
    )
    assert capsys.readouterr().err.startswith(line)


def test_a_stopped_run_goes_on_and_does_nothing_twice(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        count_paintings(patch, before=stop)
        assert main(shlex.split(COMMAND)) == 130
    assert made() == ["0.png", "1.png"], "whole pictures, and nothing half written"
    stamps = {name: Path("out", name).stat().st_mtime_ns for name in made()}
    painted = count_paintings(monkeypatch)
    capsys.readouterr()
    assert main([*shlex.split(COMMAND), "--resume"]) == 0
    assert len(painted) == 4
    assert made() == [f"{index}.png" for index in range(6)]
    assert all(Path("out", name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert capsys.readouterr().out.startswith("4 pictures in out, 2 skipped that already existed  ")
    assert main([*shlex.split(COMMAND), "--resume"]) == 0
    assert len(painted) == 4, "nothing is left to do"


def test_results_inside_the_folder_are_no_contents_of_the_next_run(folder: Path, capsys: Capture) -> None:
    """The folder of results is made, too."""
    command = shlex.split(COMMAND.replace("out", "photos/painted"))
    for words in ("6 pictures in photos/painted  ", "0 pictures in photos/painted, 6 skipped that already existed  "):
        assert main([*command, "--resume"]) == 0
        assert capsys.readouterr().out.startswith(words)
    assert main(command) == 0
    assert len(list(Path("photos/painted").iterdir())) == 6


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_folder_without_overlap(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    """As torchrun starts them, here one after the other: the files are the same whoever made them."""
    assert main(shlex.split(COMMAND)) == 0
    alone = {name: Path("out", name).read_bytes() for name in made()}
    for name in made():
        Path("out", name).unlink()
    painted = count_paintings(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        before = len(painted)
        capsys.readouterr()
        assert main(shlex.split(COMMAND)) == 0
        assert len(painted) - before in (6 // world, -(-6 // world))
        count = len(painted) - before
        words = f"process {rank} of {world}: {count} picture{'s' if count > 1 else ''} in out  "
        assert capsys.readouterr().out.startswith(words)
    assert len(painted) == 6
    assert {name: Path("out", name).read_bytes() for name in made()} == alone


def test_shares_do_not_depend_on_what_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of the first process that appear while the second one starts change nothing for it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for name in ("0.png", "2.png"):
        save_image(picture(16, 16), f"out/{name}")
    assert main([*shlex.split(COMMAND), "--resume"]) == 0
    assert made() == ["0.png", "1.png", "2.png", "3.png", "5.png"]


@pytest.mark.slow
def test_torchrun_shares_a_folder(folder: Path) -> None:
    """The real thing: two processes of one command."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "adaattn_core"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*launcher, *COMMAND.split()], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert made() == [f"{index}.png" for index in range(6)]
    assert sorted(line.partition("  ")[0] for line in done.stdout.splitlines()) == [
        "process 0 of 2: 3 pictures in out", "process 1 of 2: 3 pictures in out",
    ]  # fmt: skip
