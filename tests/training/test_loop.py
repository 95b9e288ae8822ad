"""The training loop: a stopped run ends as an uninterrupted one, whatever stopped it; what a run writes."""

from __future__ import annotations

import csv
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from adaattn_core.checkpoints.model_file import load_model
from adaattn_core.checkpoints.tensor_file import read_metadata
from adaattn_core.runtime.signals import Terminated
from adaattn_core.train import Trainer, TrainingError
from adaattn_core.training.dataset import Batch, Sample, TrainingPairs
from adaattn_core.training.loop import train
from adaattn_core.training.objective import loss_names
from adaattn_core.training.run_checkpoint import CHECKPOINT, MODEL, read_checkpoint
from tests.helpers.training_runs import Configure, assert_same_files, stop_before

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    workers: int, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = configure(output=str(tmp_path / "whole")), configure(workers=workers)
    state = torch.get_rng_state()
    train(whole)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    for step in (1, 2, 4, 5):  # in a stage, on each boundary, and in the last stage
        stop_before(step, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, resume=step > 1)
        assert read_checkpoint(Path(stopped.output) / CHECKPOINT)["step"] == step
    assert train(stopped, resume=True) == Path(stopped.output) / MODEL
    assert_same_files(Path(whole.output), Path(stopped.output))


def test_a_finished_run_is_left_alone(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    files = {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")}
    assert train(config, resume=True) == Path(config.output) / MODEL
    assert {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")} == files
    assert "is finished: all 1 steps are done, nothing is left to do" in caplog.text


def test_a_stop_in_the_middle_of_an_update_keeps_the_last_save(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(checkpoint_every=1)
    original = Trainer._update_ema

    def update(run: Trainer) -> None:
        if run.step == 3:
            raise KeyboardInterrupt  # the optimizer has moved the weights by now, their average has not followed
        original(run)

    monkeypatch.setattr(Trainer, "_update_ema", update)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == 3
    monkeypatch.setattr(Trainer, "_update_ema", original)
    train(config, resume=True)
    whole = configure(output=str(tmp_path / "whole"))
    train(whole)
    assert_same_files(Path(whole.output), Path(config.output))


def kill_before(step: int, number: int, monkeypatch: pytest.MonkeyPatch, inside: bool = False) -> None:
    """A signal when that step would start, or in the middle of its update, once."""
    method = "_update_ema" if inside else "train_step"
    original = getattr(Trainer, method)

    def killed(run: Trainer, *arguments: Any) -> Any:
        if run.step == step:
            monkeypatch.setattr(Trainer, method, original)
            os.kill(os.getpid(), number)
        return original(run, *arguments)

    monkeypatch.setattr(Trainer, method, killed)


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_and_ends_the_run(
    number: int, stop: type[BaseException], configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, handlers = configure(), [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    for step, inside, done in ((3, False, 3), (4, True, 5)):  # an update that has begun is finished first
        kill_before(step, number, monkeypatch, inside)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(config, resume=step > 3)
        assert type(caught.value) is stop
        assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == done
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == handlers
    train(config, resume=True)
    whole = configure(output=str(tmp_path / "whole"))
    train(whole)
    assert_same_files(Path(whole.output), Path(config.output))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_last_save_is_ignored(
    number: int, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, original = configure(), Trainer.save

    def save(run: Trainer) -> None:
        os.kill(os.getpid(), number)
        original(run)

    monkeypatch.setattr(Trainer, "save", save)
    kill_before(2, signal.SIGTERM, monkeypatch)
    with pytest.raises(Terminated):
        train(config)
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == 2


def test_finished_steps_are_saved_when_a_worker_is_killed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, original = configure(workers=1), Trainer.train_step

    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        if run.step == 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
        return original(run, batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(TrainingError, match=r"^step \d: a process that reads pictures was killed, as .* \(now 1\) if"):
        train(config)
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] in (1, 2)


def test_an_update_is_completed_when_a_worker_is_killed_during_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, original = configure(workers=1), Trainer._update_ema

    def update(run: Trainer) -> None:
        if run.step == 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                os.waitid(os.P_PID, child.pid or 0, os.WEXITED | os.WNOWAIT)  # the system knows, and has told us
        original(run)

    monkeypatch.setattr(Trainer, "_update_ema", update)
    with pytest.raises(TrainingError, match=r"^step \d: a process that reads pictures was killed"):
        train(config)
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] >= 2


@pytest.mark.slow
def test_a_worker_killed_while_it_checks_the_stop_event_is_noticed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingPairs.__getitem__

    def kill_inside(frame: FrameType, event: str, argument: object) -> None:
        outer: FrameType | None = frame
        while event == "return" and outer is not None:
            if outer.f_code.co_name == "is_set":
                os.kill(os.getpid(), signal.SIGKILL)  # with whatever it holds by then
            outer = outer.f_back

    def item(pairs: TrainingPairs, index: int) -> Sample:
        if index == 3 and multiprocessing.parent_process():  # after the first batch
            sys.setprofile(kill_inside)
        return original(pairs, index)

    monkeypatch.setattr(TrainingPairs, "__getitem__", item)
    with time_limit(60), pytest.raises(TrainingError, match=r"^step \d: a process that reads pictures was killed"):
        train(configure(workers=1))


def test_a_worker_killed_while_it_transfers_a_batch_is_noticed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures are announced, and it is gone, but not yet to the system."""

    def detach(_: object) -> int:  # not a Mock, which would keep the error and with it all variables of the frames
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(multiprocessing.resource_sharer.DupFd, "detach", detach)
    with pytest.raises(TrainingError, match=r"^step 0: a process that reads pictures was killed, as "):
        train(configure(workers=1))


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError])
def test_no_worker_outlives_the_error_about_a_killed_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The system may tell of a process's end after its connections are closed; by then torch must not listen again."""

    def detach(_: object) -> int:
        raise error

    monkeypatch.setattr(multiprocessing.resource_sharer.DupFd, "detach", detach)
    with pytest.raises(TrainingError, match="was killed") as caught:
        train(configure(workers=1))
    assert not multiprocessing.active_children(), caught.value


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """TimeoutError in the main thread, rather than a test that never ends."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_run_writes_all_files_of_the_run_folder(configure: Configure) -> None:
    config = configure(sample_every=4, ema_decay=0.0)
    train(config)
    folder = Path(config.output)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    samples = {"samples/step-000004.jpg", "samples/step-000006.jpg"}
    assert names == {MODEL, str(CHECKPOINT), "losses.csv", "losses.svg", *samples}
    trained = read_checkpoint(folder / CHECKPOINT)["model"]
    for name, value in load_model(folder / MODEL).state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=1e-3, atol=1e-7)  # float16 has 11 bits
    assert '"steps": 6' in read_metadata(folder / MODEL)["trained_on"]


def test_a_run_logs_every_loss_that_a_setting_turns_on(configure: Configure) -> None:
    weights = dict.fromkeys(("patch", "content", "identity", "color", "mesh"), 1.0)
    config = configure(teacher="compact", **{f"{name}_weight": weight for name, weight in weights.items()})
    train(config)
    with (Path(config.output) / "losses.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    expected = set(loss_names(config, "style"))
    assert {*weights, "teacher", "global", "local"} <= expected
    assert {name for name in expected if row[name]} == expected


def test_tensorboard_shows_the_run(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed; pip install adaattn[train] un-skips this",
    )
    config = configure(tensorboard=True, sample_every=3)
    stop_before(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    train(config, resume=True)
    seen = events.EventAccumulator(str(Path(config.output) / "tensorboard"))
    seen.Reload()
    with (Path(config.output) / "losses.csv").open(newline="") as file:
        totals = [float(row["total"]) for row in csv.DictReader(file)]
    assert [event.step for event in seen.Scalars("loss/total")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in seen.Scalars("loss/total")] == pytest.approx(totals, rel=1e-5)
    assert [event.step for event in seen.Scalars("loss/distill")] == [1, 2]
    assert [event.step for event in seen.Scalars("pairs_per_second")] == [2, 3, 4, 6]  # none after a start
    assert all(event.value > 0 for event in seen.Scalars("pairs_per_second"))
    assert [event.step for event in seen.Images("samples")] == [3, 6]


def test_a_missing_tensorboard_is_reported_before_the_work(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError) as caught:
        train(configure(tensorboard=True))
    assert str(caught.value) == (
        "--tensorboard needs the package tensorboard, which is not installed. Run: pip install tensorboard"
    )
    assert not Path(configure().output).exists()


@pytest.mark.parametrize("dead", [False, True])
def test_a_decoder_that_ignores_the_deep_levels_causes_a_warning(
    dead: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Trainer.train_step

    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        record = original(run, batch)
        if dead:
            assert run.model.decoder.deep is not None and run.model.decoder.deep.bias is not None
            run.model.decoder.deep.bias.data.fill_(-1e4)
        return record

    monkeypatch.setattr(Trainer, "train_step", train_step)
    train(configure(distill_steps=0, reconstruct_steps=0), progress=False)
    line = (
        "step 2: the decoder no longer sees relu4_1 and relu5_1 (its deep convolution is below 0 everywhere); "
        "start again with a lower learning rate, or with --deep-lr-scale 0.05"
    )
    assert (line in caplog.text) == dead
