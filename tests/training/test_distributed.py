"""Training in several processes: the same run as in one, and an end for all when it ends for one.

The processes are real, on the CPU. They are started as torchrun starts them, once by torchrun itself.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core.errors import DataError
from adaattn_core.runtime.distributed import DistributedContext, PeerLostError, RankStatus
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataloader import batches
from adaattn_core.training.dataset import PairSchedule, TrainingPairs
from adaattn_core.training.loop import train
from adaattn_core.training.run_checkpoint import CHECKPOINT, read_checkpoint
from tests.helpers import tiny_training

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of torch has no gloo")

ROOT = Path(__file__).parents[2]
STEPS = 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    tiny_training.write_pictures(folder)
    return folder


@pytest.fixture
def settings(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a run whose only self pair falls to the first of two processes."""
    tiny_training.use_small_vgg(monkeypatch)
    return tiny_settings(pictures, tmp_path / "run")


def tiny_settings(pictures: Path, output: Path) -> dict[str, Any]:
    # Adam's first steps are as large as the learning rate however small the gradient, so rounding in a sum of another
    # order grows with every step; small steps keep it below what is tested.
    slow = {"lr": 1e-5, "pretrain_lr": 1e-5}
    return tiny_training.tiny_settings(pictures, output) | {"batch": 4, "self_pairs": 0.25} | slow


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the same run in one process, uninterrupted.

    In one thread, as torchrun sets up its processes: with two the fit of the encoder, a regression on few crops, adds
    up in another order, and its losses are 5e-5 away before the first step.
    """
    output = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.use_small_vgg(patch)
        try:
            train(TrainConfig(**tiny_settings(pictures, output)))
        finally:
            torch.set_num_threads(threads)
    return str(output)


def program(settings: dict[str, Any], *words: str) -> list[str]:
    file = Path(settings["output"]).with_name("settings.json")
    file.write_text(json.dumps(settings))
    return [tiny_training.__file__, str(file), *words]


def environment(**more: object) -> dict[str, str]:
    path = str(ROOT)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | {
        name: str(value) for name, value in more.items()
    }


def run_in_two(settings: dict[str, Any], *words: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of both processes, but for the first one's word on how few pictures there are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}
    processes = [
        subprocess.Popen(
            [sys.executable, *program(settings, *words)],
            env=environment(RANK=rank, LOCAL_RANK=rank, **address),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    (out, err), second = told
    err = "".join(line for line in err.splitlines(keepends=True) if "fewer than the 4 pairs of a step" not in line)
    return [(process.returncode, *words) for process, words in zip(processes, ((out, err), second), strict=True)]


class Threaded(DistributedContext):
    """Processes played by threads."""

    def __init__(self, rank: int, meeting: threading.Barrier) -> None:
        super().__init__(rank, meeting.parties, rank)
        self.meeting = meeting

    def _exchange(self, news: RankStatus) -> list[RankStatus]:
        self.meeting.wait(timeout=60)
        return [news] * self.world


def test_the_first_process_of_a_machine_fetches_before_the_others() -> None:
    meeting, told = threading.Barrier(3), list[str]()

    def fetch(rank: int) -> None:
        with Threaded(rank, meeting).local_main_first():
            told.append(f"{rank} begins")
            time.sleep(0.05)
            told.append(f"{rank} ends")

    threads = [threading.Thread(target=fetch, args=(rank,)) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[:2] == ["0 begins", "0 ends"] and len(told) == 6


@pytest.mark.parametrize("error", [None, DataError("no picture is left."), PeerLostError("gone"), KeyboardInterrupt()])
def test_no_thread_of_the_connection_outlives_it(error: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    ranks = Threaded(0, threading.Barrier(1))
    ranks.world = 2
    with nullcontext() if error is None else pytest.raises(type(error)), ranks.process_group():
        assert torch.distributed.is_initialized()
        if error is not None:
            raise error
    assert not torch.distributed.is_initialized()


def rows(output: str) -> list[dict[str, str]]:
    with Path(output, "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(one: str, other: str) -> None:
    assert len(rows(one)) == len(rows(other)) == STEPS
    for row, expected in zip(rows(one), rows(other), strict=True):
        for name, value in expected.items():
            if name == "gradient_norm":
                continue  # a ReLU on the verge of 0 may fall to either side, which no loss feels
            if value.replace(".", "").isdigit():
                assert float(row[name]) == pytest.approx(float(value), rel=1e-5), f"{name} of step {row['step']}"
            else:
                assert row[name] == value
    models = [read_checkpoint(Path(output) / CHECKPOINT)["model"] for output in (one, other)]
    for name, value in models[0].items():
        if name.endswith("key_proj.bias"):
            continue  # softmax does not see it: its gradient is rounding alone, which Adam blows up to whole steps
        torch.testing.assert_close(value, models[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(settings: dict[str, Any], whole: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *program(settings)]
    command[3:3] = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(Path(settings["output"]) / "model.safetensors")], "one of them speaks"
    assert_same_run(settings["output"], whole)


@pytest.mark.slow
def test_a_stop_stops_both_and_one_process_goes_on(settings: dict[str, Any], whole: str) -> None:
    (code, out, err), second = run_in_two(settings, "--trouble", "stop")  # the second process is told
    assert (code, out) == (143, "") and second == (143, "", "")
    assert err == f"adaattn: stopped; what is done is in {settings['output']}. Go on with --resume.\n"
    assert read_checkpoint(Path(settings["output"]) / CHECKPOINT)["step"] == tiny_training.TROUBLED_STEP
    train(TrainConfig(**settings), resume=True)
    assert_same_run(settings["output"], whole)


@pytest.mark.slow
def test_the_death_of_one_ends_both_and_two_go_on(settings: dict[str, Any], whole: str) -> None:
    (code, _, err), (signalled, *_) = run_in_two(settings, "--trouble", "vanish")
    assert (code, signalled) == (1, -9)
    assert err == "adaattn: another process of the run is gone. What is done is saved: go on with --resume.\n"
    assert read_checkpoint(Path(settings["output"]) / CHECKPOINT)["step"] == tiny_training.TROUBLED_STEP
    assert [code for code, *_ in run_in_two(settings, "--resume")] == [0, 0]
    assert_same_run(settings["output"], whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "codes", "line"),
    [
        ("fail", (1, 1), "process 1 of 2 cannot go on: no picture is left. Find some."),
        ("poison", (1, 1), "step 3: the pixel loss became nan. Nothing is saved yet: start again with a lower"),
    ],
)
def test_what_ends_one_ends_both_with_one_line(
    trouble: str, codes: tuple[int, int], line: str, settings: dict[str, Any]
) -> None:
    first, second = run_in_two(settings, "--trouble", trouble)
    assert (first[0], second[0]) == codes, first[2] + second[2]
    assert first[2].startswith(f"adaattn: {line}") and first[2].count("\n") == 1 and second[1:] == ("", "")


def test_processes_share_a_batch_out(tmp_path: Path) -> None:
    tiny_training.write_pictures(tmp_path)
    pairs = TrainingPairs(tmp_path / "content", tmp_path / "style", PairSchedule(12, 4, 1), crop=32, seed=0)
    shares = [list(batches(pairs, step=1, workers=0, rank=rank, world=2)) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    for step in range(2):
        for rank in range(2):
            expected = torch.stack([pairs[4 + 4 * step + rank + 2 * item].content for item in range(2)])
            assert torch.equal(shares[rank][step].content, expected)


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("adaattn_core.runtime.distributed.pick_device", str)
    assert [str(DistributedContext(rank, 4, rank % 2).pick_device("auto")) for rank in range(4)] == [
        "cuda:0",
        "cuda:1",
    ] * 2
    assert (
        str(DistributedContext(1, 2, 1).pick_device("cpu")) == "cpu"
        and str(DistributedContext().pick_device("cuda:1")) == "cuda:1"
    )
    with pytest.raises(ValueError, match="^this machine has 2 GPUs, less than processes. Start torchrun with"):
        DistributedContext(2, 3, 2).pick_device("cuda")
    with pytest.raises(ValueError, match="^--device cuda:1 is one for all 2 processes. Use --device cuda, cpu or"):
        DistributedContext(1, 2, 1).pick_device("cuda:1")
