"""Training: what a step does, what a stopped run comes back as, and what is said when it cannot go on.

All runs are narrow and tiny. The loss network is a narrow VGG-19 with random weights, except where the full-size one
is the subject.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from torch import Tensor

import adaattn_core.training.initialization
import adaattn_core.training.objective
from adaattn_core.checkpoints.model_file import load_model, read_metadata, save_model
from adaattn_core.cli import main
from adaattn_core.errors import CheckpointError, DataError, ImageError, OutputError
from adaattn_core.models.config import ModelConfig
from adaattn_core.models.encoder import LEVELS, Features, VGGEncoder
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.runtime.distributed import DistributedContext
from adaattn_core.runtime.signals import Terminated
from adaattn_core.train import Trainer, TrainingError
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import Batch, Sample, TrainingPairs, collate
from adaattn_core.training.loop import train
from adaattn_core.training.losses import global_style_loss
from adaattn_core.training.objective import StylizedPairs, batch_losses, loss_shares, pair_indices
from adaattn_core.training.run_checkpoint import CHECKPOINT, MODEL, check_same_settings, read_checkpoint
from adaattn_core.training.run_log import COLUMNS, RunLogger
from tests.helpers.tiny_training import small_vgg, tiny_settings, use_small_vgg, write_pictures

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)

Configure = Callable[..., TrainConfig]
DEEP = re.compile(r"encoder\.layers\.conv(3_2|4|5)|fusion\.attention\.relu[45]|fusion\.merge|decoder\.deep")
"""Parameters that only relu4_1 and relu5_1 go through."""
STYLE_ONLY: dict[str, Any] = {"distill_steps": 0, "reconstruct_steps": 0, "self_pairs": 0.0, "warmup_steps": 0}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture
def configure(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Makes the config of a tiny run of 2 + 2 + 2 steps; arguments override."""
    use_small_vgg(monkeypatch)
    return partial(replace, TrainConfig(**tiny_settings(pictures, tmp_path / "run")))


def first_batch(run: Trainer) -> Batch:
    return collate([run.pairs[index] for index in range(run.config.batch)])


def tensors(state: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested dicts and lists, by path."""
    if isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{name}.{key}")
    else:
        yield name, state


def assert_same_files(one: Path, other: Path) -> None:
    """The same run, bit for bit: weights, averaged weights, adapters, optimizer, model file and log."""
    a, b = (dict(tensors(read_checkpoint(folder / CHECKPOINT))) for folder in (one, other))
    assert a.keys() == b.keys()
    for name, value in a.items():
        if name == ".config":
            continue  # it names the output folder
        same = torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]
        assert same, f"{name} differs"
    models = [load_model(folder / MODEL).state_dict() for folder in (one, other)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert (one / "losses.csv").read_text() == (other / "losses.csv").read_text()


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when that step would start, once."""
    original = Trainer.train_step

    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        if run.step == step:
            monkeypatch.setattr(Trainer, "train_step", original)
            raise KeyboardInterrupt
        return original(run, batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)


# ---------------------------------------------------------------- stopping and going on


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


def test_the_seed_changes_the_run(configure: Configure, tmp_path: Path) -> None:
    losses = [Trainer(configure(seed=seed, **STYLE_ONLY)) for seed in (0, 0, 1)]
    found = [run.train_step(first_batch(run)) for run in losses]
    assert found[0] == found[1] != found[2]


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


def test_a_save_that_fails_leaves_the_save_before(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure())
    (run.folder / "checkpoints").mkdir(parents=True)
    run.save()
    before = (run.folder / CHECKPOINT).read_bytes()

    original = Path.write_bytes

    def cut_short(path: Path, data: bytes) -> int:
        written = original(path, data)
        if path.suffix == CHECKPOINT.suffix:
            os.truncate(path, written // 2)
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run.save()
    assert (run.folder / CHECKPOINT).read_bytes() == before
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == [CHECKPOINT.name]


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
def test_a_signal_during_the_last_save_does_no_harm(
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


def test_a_worker_that_is_killed_costs_nothing(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_worker_that_is_killed_in_an_update_lets_it_end(
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


def test_a_worker_that_is_killed_as_it_looks_whether_to_stop_is_noticed(
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


def test_a_worker_that_is_killed_as_it_hands_a_picture_over_is_noticed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures are announced, and it is gone, but not yet to the system."""
    detach = Mock(side_effect=ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    monkeypatch.setattr(multiprocessing.resource_sharer.DupFd, "detach", detach)
    with pytest.raises(TrainingError, match=r"^step 0: a process that reads pictures was killed, as "):
        train(configure(workers=1))


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


# ---------------------------------------------------------------- the checkpoints that are kept


def checkpoints(config: TrainConfig) -> dict[str, int]:
    """The step in each file of checkpoints/."""
    return {path.name: read_checkpoint(path)["step"] for path in (Path(config.output) / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (1, {}),
        (3, {"step-000004.pt": 4, "step-000005.pt": 5}),
        (9, {f"step-00000{step}.pt": step for step in range(1, 6)}),
    ],
)
@pytest.mark.parametrize("links", [True, False])
def test_the_last_checkpoints_are_kept(
    keep: int, names: dict[str, int], links: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(keep_checkpoints=keep, checkpoint_every=1)
    if not links:  # a disk that has none
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):  # saves the third step twice
        train(config)
    train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 6, **names}


def test_a_save_that_fails_removes_no_earlier_one(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(keep_checkpoints=2, checkpoint_every=1)
    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    original = os.replace

    def replace_once(source: Path, target: Path) -> None:
        if Path(target).name == CHECKPOINT.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        original(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(OutputError, match="disk full while writing .*latest.pt"):
        train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 3, "step-000002.pt": 2, "step-000003.pt": 3}
    monkeypatch.setattr(os, "replace", original)
    train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 6, "step-000005.pt": 5}


# ---------------------------------------------------------------- when it cannot go on


def test_nan_stops_the_run_and_leaves_the_last_save(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(steps=4, distill_steps=0, reconstruct_steps=0, checkpoint_every=2)
    calls = 0

    def poisoned(found: Features, style: Features, levels: Sequence[str]) -> Tensor:
        nonlocal calls
        calls += 1
        return global_style_loss(found, style, levels) * (math.nan if calls == 4 else 1.0)

    monkeypatch.setattr(adaattn_core.training.objective, "global_style_loss", poisoned)
    with pytest.raises(TrainingError) as caught:
        train(config)
    assert str(caught.value) == (
        f"step 3: the global loss became nan. The save of step 2 is intact: start a new run from it (--init "
        f"{Path(config.output) / MODEL}) with a lower learning rate (style: 0.0001) or --precision float32."
    )
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == 2
    assert len((Path(config.output) / "losses.csv").read_text().splitlines()) == 1 + 3
    monkeypatch.setattr(adaattn_core.training.objective, "global_style_loss", global_style_loss)
    train(config, resume=True)
    whole = replace(config, output=str(tmp_path / "whole"))
    train(whole)
    assert_same_files(Path(whole.output), Path(config.output))


def test_a_bad_gradient_changes_no_weight(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(**STYLE_ONLY))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    next(run.model.decoder.parameters()).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingError, match=r"^step 0: the gradient became (nan|inf)\. Nothing is saved yet: start"):
        run.train_step(first_batch(run))
    assert run.step == 0
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_weights_that_ran_away_are_not_saved(configure: Configure) -> None:
    config = configure(steps=0, distill_steps=0, reconstruct_steps=3, pretrain_lr=1e30, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"^step 1: weight \S+ became \S+e\+29\. Nothing is saved yet"):
        train(config)  # Adam's first step is as long as the learning rate
    assert not (Path(config.output) / CHECKPOINT).exists() and not (Path(config.output) / MODEL).exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmany lines"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=["CUDA", "processor"],
)
def test_no_memory_is_said_in_one_line(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        raise error

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(TrainingError) as caught:
        train(configure())
    assert str(caught.value) == "step 0: cpu has no memory left. Make --batch (now 2) or --crop (now 32) smaller."


def test_broken_pictures_are_named_once(
    configure: Configure,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = shutil.copytree(pictures / "content", tmp_path / "content")
    (content / "broken.jpg").write_bytes(b"not a picture")
    config = configure(content=str(content), workers=1)
    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    train(config, resume=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"skipped {content / 'broken.jpg'}: not a readable picture (1 so far)"]
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["skipped"] == [str(content / "broken.jpg")]


@pytest.mark.parametrize("workers", [0, 1])
def test_only_broken_pictures_are_an_error_of_one_line(workers: int, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        train(configure(content=str(tmp_path / "text.jpg"), workers=workers, vgg_floor=0.0, **STYLE_ONLY))
    line = str(caught.value)
    assert line.startswith("100 pictures in a row cannot be read, the last is ") and "\n" not in line


def test_folders_without_pictures_leave_no_run_behind(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for folder, text in (("bare", "bare holds no picture; at least one"), ("nowhere", "nowhere does not exist")):
        with pytest.raises(ImageError, match=text):
            train(configure(style=str(tmp_path / folder)))
    assert not Path(configure().output).exists()


def test_one_picture_serves_any_batch(configure: Configure, pictures: Path) -> None:
    one = str(pictures / "content" / "0.png")
    train(configure(content=one, style=one, batch=5, steps=1, distill_steps=0, reconstruct_steps=1))


def test_pictures_of_one_colour_each_are_refused(configure: Configure, tmp_path: Path) -> None:
    for name, color in (("red", (200, 10, 10)), ("black", (0, 0, 0))):
        Image.new("RGB", (40, 40), color).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError) as caught:
        train(configure(content=str(tmp_path), self_pairs=0.0, distill_steps=0, reconstruct_steps=0))
    assert str(caught.value) == (
        f"the pictures of {tmp_path} are of one colour each, and nothing can be learnt from them. "
        "Check the training folders."
    )


@pytest.mark.parametrize(("batch", "told"), [(2, False), (4, True)])
def test_folders_of_fewer_pictures_than_a_batch_are_told(
    batch: int, told: bool, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(batch=batch, steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    for folder in (config.content, config.style):
        assert (f"{folder} holds 2 picture(s), fewer than the 4 pairs of a step" in caplog.text) == told


def test_a_run_is_not_written_over(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    with pytest.raises(CheckpointError, match=r"latest\.pt: no checkpoint to resume from\. Start without --resume\.$"):
        train(config, resume=True)
    train(config)
    with pytest.raises(DataError, match=r"run already holds a run\. Add --resume to go on, or choose another --output"):
        train(config)


def test_a_run_folder_that_cannot_be_is_told_before_the_work(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError) as caught:
            train(configure(output=str(output), content="not even looked at"))
        assert str(caught.value) == (
            f"{tmp_path / 'file'} is a file, and {output} has to be a folder. Choose another --output."
        )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"may not be written to\. Choose another --output, or change its permissions"):
        train(configure(output=str(tmp_path / "a" / "b")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here; Linux has it")
def test_a_disk_that_fills_up_while_training_is_one_line(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(checkpoint_every=1)
    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    original = RunLogger.add

    def add(record: RunLogger, *arguments: Any) -> None:
        record.file.close()
        record.file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115  # closed with the log
        record.writer = csv.DictWriter(record.file, COLUMNS)
        original(record, *arguments)

    monkeypatch.setattr(RunLogger, "add", add)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(config).items() if type(value) is str]
    numbers = {name: value for name, value in asdict(config).items() if type(value) in (int, float)}
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in numbers.items()]
    assert main(["train", "--resume", *[flag for flag in flags if not flag.endswith("=")]]) == 2
    assert capsys.readouterr().err == "adaattn: disk full. Free some space or choose another disk.\n"
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == 2
    monkeypatch.setattr(RunLogger, "add", original)
    train(config, resume=True)


def test_a_run_goes_on_with_its_own_settings_alone(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, lr=1.0, steps=2), resume=True)
    assert str(caught.value) == (
        f"the run in {config.output} was started with other settings (steps 1 -> 2; lr 0.0001 -> 1.0). "
        "Resume with the same, or start a new run from its weights with --init."
    )
    train(replace(config, workers=1, checkpoint_every=7, vgg="elsewhere"), resume=True)  # these may change


def test_a_run_goes_on_with_its_own_vgg_alone(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(checkpoint_every=1)
    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)

    def other_vgg(source: str | Path) -> VGGEncoder:
        vgg = small_vgg(source)
        with torch.no_grad():
            next(vgg.layers.parameters()).mul_(2)
        return vgg

    monkeypatch.setattr(adaattn_core.training.initialization, "load_vgg", other_vgg)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, vgg="other.pth"), resume=True)
    assert str(caught.value) == (
        f"the VGG-19 of other.pth is not the one that the run in {config.output} was started with. "
        "Resume with that, or start a new run from its weights with --init."
    )


def test_pictures_that_came_or_went_while_a_run_was_stopped_are_told(
    configure: Configure,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = shutil.copytree(pictures / "content", tmp_path / "content")
    config = configure(content=str(content))
    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    shutil.copy(content / "0.png", content / "2.png")
    train(config, resume=True)
    assert caplog.messages == [
        "there are other pictures than when the run was saved (content 2 -> 3): it goes on, but not as if it had "
        "never stopped"
    ]


def test_a_checkpoint_from_before_data_was_kept_in_it_is_resumed(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    path = train(config).parent / CHECKPOINT
    state = read_checkpoint(path)
    torch.save({name: value for name, value in state.items() if name not in ("vgg", "pictures")}, path)
    train(config, resume=True)


def test_a_setting_younger_than_the_checkpoint_had_its_default(configure: Configure) -> None:
    config = configure()
    saved = json.dumps({name: value for name, value in asdict(config).items() if name != "weight_decay"})
    check_same_settings(config, saved)
    with pytest.raises(CheckpointError, match=r"other settings \(weight_decay 0\.0 -> 0\.5\)"):
        check_same_settings(replace(config, weight_decay=0.5), saved)


def test_a_checkpoint_of_another_model_is_refused(configure: Configure, tmp_path: Path) -> None:
    narrow, wide = (ModelConfig(channels=(c, c, c, c, c)) for c in (8, 16))
    for name, model_config in (("narrow", narrow), ("wide", wide)):
        save_model(StyleTransferModel(model_config), tmp_path / f"{name}.safetensors")
    config = configure(init=str(tmp_path / "narrow.safetensors"), steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, init=str(tmp_path / "wide.safetensors")), resume=True)
    line = str(caught.value)
    assert line.startswith(
        f"{Path(config.output) / CHECKPOINT} does not fit the model of these settings: size mismatch"
    )
    assert line.endswith("Resume with the --init of its first start.") and "\n" not in line


def damaged(whole: bytes) -> dict[str, bytes]:
    return {"half": whole[: len(whole) // 2], "nothing": b"", "text": b"no checkpoint", "no end": whole[:-10]}


@pytest.mark.parametrize("damage", damaged(b""))
def test_a_damaged_checkpoint_is_refused(damage: str, configure: Configure) -> None:
    run = Trainer(configure())
    path = run.folder / CHECKPOINT
    path.parent.mkdir(parents=True)
    run.save()
    path.write_bytes(damaged(path.read_bytes())[damage])
    with pytest.raises(CheckpointError) as caught:
        train(run.config, resume=True)
    assert str(caught.value) == (
        f"{path} is damaged or no training checkpoint. Start a new run, from {run.folder / MODEL} with --init."
    )


def test_of_a_damaged_checkpoint_the_one_before_it_is_named(configure: Configure) -> None:
    run = Trainer(configure())
    path = run.folder / CHECKPOINT
    path.parent.mkdir(parents=True)
    for step in (1, 2, 3):
        run.step = step
        run.save()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"Copy step-000002\.pt over it, which was saved before, and --resume\.$"):
        train(run.config, resume=True)
    shutil.copy(path.with_name("step-000002.pt"), path)
    train(run.config, resume=True)


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "model": {}}, tmp_path / "latest.pt")
    with pytest.raises(
        CheckpointError, match=r"no training checkpoint: it has no adapters, config, ema, optimizer, skip"
    ):
        read_checkpoint(tmp_path / "latest.pt")


# ---------------------------------------------------------------- what is learnt


def fall(run: Trainer, loss: str) -> float:
    """Last loss over first, of one batch again and again for the whole run."""
    batch = first_batch(run)
    losses = [run.train_step(batch)[loss] for _ in range(run.total)]
    return losses[-1] / losses[0]


def test_distilling_lowers_its_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=40, reconstruct_steps=0, steps=0, pretrain_lr=1e-3))
    run.initialize()
    decoder = [value.clone() for value in run.model.decoder.state_dict().values()]
    assert fall(run, "distill") < 0.3
    assert all(map(torch.equal, decoder, run.model.decoder.state_dict().values())), "the decoder has no part in it"


def test_reconstructing_lowers_its_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=150, steps=0, pretrain_lr=1e-3))
    run.initialize()
    assert fall(run, "pixel") < 0.5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_pair_is_overfitted(precision: str, configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=40, lr=1e-3, batch=1, precision=precision))
    run.initialize()
    assert fall(run, "total") < 0.3
    assert all(value.dtype == torch.float32 for value in run.model.state_dict().values())


def test_a_new_encoder_is_fitted_to_the_vgg(configure: Configure) -> None:
    config = configure(distill_steps=1)
    runs = Trainer(config), Trainer(config)
    runs[1].initialize()
    losses = [run.train_step(first_batch(run))["distill"] for run in runs]
    assert losses[1] < 0.5 * losses[0]


def test_an_encoder_larger_than_the_vgg_starts_at_random(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    run = Trainer(configure(width=0.5))
    before = run.model.encoder.state_dict()["layers.conv3_1.weight"].clone()
    run.initialize()
    assert torch.equal(run.model.encoder.state_dict()["layers.conv3_1.weight"], before)
    assert "the encoder is larger than the VGG-19; it starts from random weights" in caplog.text


# ---------------------------------------------------------------- what a step does


def test_a_run_leaves_all_that_it_promises(configure: Configure) -> None:
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


def test_a_missing_tensorboard_is_told_before_the_work(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError) as caught:
        train(configure(tensorboard=True))
    assert str(caught.value) == (
        "--tensorboard needs the package tensorboard, which is not installed. Run: pip install tensorboard"
    )
    assert not Path(configure().output).exists()


def test_learning_rates_by_hand(configure: Configure) -> None:
    config = configure(
        distill_steps=3, reconstruct_steps=1, steps=4, warmup_steps=2, lr=8.0, pretrain_lr=6.0, encoder_lr_scale=0.5
    )
    assert [config.learning_rates(step)[1] for step in range(4)] == [3, 6, 6, 3]  # warm-up starts anew with each stage
    cosine = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]  # at 0, 45, 90, 135 degrees, from 1 to 0
    style = [8 * warm * (0.01 + 0.99 * share) for warm, share in zip((0.5, 1, 1, 1), cosine, strict=True)]
    assert [config.learning_rates(step)[1] for step in range(4, 8)] == pytest.approx(style)
    assert [config.learning_rates(step)[0] for step in range(8)] == pytest.approx(
        [3, 6, 6, 1.5, *(x / 2 for x in style)]
    )
    with pytest.raises(ValueError, match="step 8 is past the end of the run"):
        config.learning_rates(8)


def test_the_optimizer_gets_these_learning_rates(configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=4, lr=1e-3))
    for step in range(4):
        run.train_step(first_batch(run))
        rest, encoder = (group["lr"] for group in run.optimizer.param_groups)
        assert (encoder, rest) == run.config.learning_rates(step)
        assert {id(p) for p in run.optimizer.param_groups[1]["params"]} == {
            id(p) for p in run.model.encoder.parameters()
        }


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_deep_levels_take_their_share_of_the_learning_rates(share: float, configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=2, lr=1e-3, deep_lr_scale=share))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train_step(first_batch(run))
    encoder, rest = run.config.learning_rates(0)
    assert [group["lr"] for group in run.optimizer.param_groups] == [rest, encoder, rest * share, encoder * share]
    names = {name for name, _ in run.model.named_parameters() if not name.endswith("key_proj.bias")}  # always stays
    moved = {name for name in names if not torch.equal(before[name], run.model.state_dict()[name])}
    assert moved == (names if share else {name for name in names if not DEEP.match(name)})


def test_every_stage_starts_with_a_fresh_optimizer(configure: Configure) -> None:
    run = Trainer(configure())
    for step in range(6):
        run.train_step(first_batch(run))
        counts = {int(state["step"]) for state in run.optimizer.state.values()}
        assert counts == {step % 2 + 1}


def test_averaged_weights_by_hand(configure: Configure) -> None:
    run = Trainer(configure(steps=3, distill_steps=1, reconstruct_steps=0, lr=1e-2))
    seen: list[Tensor] = []
    for _ in range(4):
        run.train_step(first_batch(run))
        seen.append(run.model.state_dict()["decoder.deep.weight"].clone())
        if len(seen) == 1:
            assert torch.equal(run.ema["decoder.deep.weight"], seen[0])  # before the style stage: the weights
    expected = seen[0]
    for kept, weight in zip((1 / 10, 2 / 11, 3 / 12), seen[1:], strict=True):
        expected = kept * expected + (1 - kept) * weight
    torch.testing.assert_close(run.ema["decoder.deep.weight"], expected)
    averaged = run.averaged_model().state_dict()["decoder.deep.weight"]
    assert torch.equal(averaged, run.ema["decoder.deep.weight"])
    long = configure(steps=100_000)
    assert long.ema_decay_at(90_000) == long.ema_decay == 0.999


def test_long_gradients_are_shortened(configure: Configure) -> None:
    def gradient(clip_norm: float) -> tuple[float, float]:
        run = Trainer(configure(**STYLE_ONLY, clip_norm=clip_norm))
        reported = run.train_step(first_batch(run))["gradient_norm"]
        parts = [p.grad.norm() for p in run.model.parameters() if p.grad is not None]
        return reported, float(torch.stack(parts).norm())

    whole, left = gradient(0.0)
    assert left == pytest.approx(whole, rel=1e-4)
    whole_again, shortened = gradient(whole / 8)
    assert whole_again == whole and shortened == pytest.approx(whole / 8, rel=1e-4)


def test_adamw_shrinks_what_adam_leaves(configure: Configure) -> None:
    weights = {}
    for decay in (0.0, 0.5):
        run = Trainer(configure(**STYLE_ONLY, optimizer="adamw", weight_decay=decay, lr=0.1))
        before = run.model.decoder.state_dict()["deep.weight"].clone()
        run.train_step(first_batch(run))
        weights[decay] = run.model.decoder.state_dict()["deep.weight"]
    torch.testing.assert_close(weights[0.0] - weights[0.5], 0.1 * 0.5 * before, rtol=1e-4, atol=1e-7)


def test_the_total_is_the_weighted_sum(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=0, content_weight=7.0, pixel_weight=5.0))
    losses = run.train_step(first_batch(run))
    total = 10 * losses["global"] + 3 * losses["local"] + 7 * losses["content"] + 5 * losses["pixel"]
    assert losses["total"] == pytest.approx(total, rel=1e-5)


def test_each_content_is_painted_in_several_styles(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(**STYLE_ONLY | {"self_pairs": 0.25}, batch=4, styles_per_content=2))
    batch = first_batch(run)
    seen: list[StylizedPairs] = []
    original = adaattn_core.training.objective.style_losses

    def style_losses(config: TrainConfig, step: int, vgg: VGGEncoder, pairs: StylizedPairs) -> dict[str, Tensor]:
        seen.append(pairs)
        return original(config, step, vgg, pairs)

    monkeypatch.setattr(adaattn_core.training.objective, "style_losses", style_losses)
    assert batch.n_self_pairs == 1
    batch_losses(run.config, run.step, run.networks, batch)
    ((_, _, pictures, contents, styles),) = seen
    assert list(zip(contents.tolist(), styles.tolist(), strict=True)) == [
        (1, 1),
        (2, 2),
        (3, 3),
        (1, 2),
        (2, 3),
        (3, 1),
    ]
    alone = run.model(batch.content[contents], batch.style[styles])
    assert torch.allclose(pictures, alone, atol=1e-5)  # other batches, other order of additions


def test_more_styles_than_the_batch_has_are_all_of_it() -> None:
    contents, styles = pair_indices(3, n_self_pairs=1, styles_per_content=9)
    assert len(set(zip(contents.tolist(), styles.tolist(), strict=True))) == 1 + 2 * 2


@pytest.mark.parametrize("settings", [{"optimizer": "muon"}, {"relative_style": True}, {"styles_per_content": 2}])
def test_pairs_are_overfitted_with(settings: dict[str, Any], configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=40, lr=1e-3, **settings))
    run.initialize()
    assert fall(run, "total") < 0.6


@pytest.mark.parametrize("dead", [False, True])
def test_a_decoder_that_lost_the_deep_levels_is_told(
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


def test_self_pairs_alone_need_no_style_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=0, self_pairs=1.0))
    assert run.train_step(first_batch(run)).keys() == {"pixel", "total", "gradient_norm"}


def test_a_run_starts_from_weights(configure: Configure, tmp_path: Path) -> None:
    first = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    file = train(first)
    run = Trainer(configure(init=str(file), output=str(tmp_path / "second"), **STYLE_ONLY, width=1.0))
    assert run.model.config == first.model_config(), "the file's architecture is taken over"
    for name, value in load_model(file).state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value)
    assert all(p.requires_grad for p in run.model.parameters())
    run.train_step(first_batch(run))


def test_a_frozen_encoder_is_the_vgg_and_stays_so(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real load_vgg
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        torch.save(
            {f"{name.removeprefix('layers.')}": x for name, x in VGGEncoder().state_dict().items()}, tmp_path / "v.pth"
        )
    frozen = {"architecture": "base", "width": 1.0, "freeze_encoder": True, "optimizer": "adamw", "weight_decay": 0.1}
    run = Trainer(
        configure(vgg=str(tmp_path / "v.pth"), batch=1, reconstruct_steps=0, steps=2, self_pairs=0.0, **frozen)
    )
    vgg = {name: value.clone() for name, value in run.vgg.state_dict().items()}
    assert [run.config.stage(step)[0] for step in (0, 1)] == ["style", "style"], "there is nothing to distill"
    decoder = run.model.decoder.state_dict()["deep.weight"].clone()
    run.train_step(first_batch(run))
    assert not torch.equal(decoder, run.model.decoder.state_dict()["deep.weight"])
    for state in (run.model.encoder.state_dict(), run.averaged_model().encoder.state_dict()):
        assert all(torch.equal(value, vgg[name]) for name, value in state.items())


# ---------------------------------------------------------------- parts of a batch


def step_in_parts(configure: Configure, parts: int, **settings: Any) -> tuple[list[dict[str, float]], Trainer]:
    """The losses of all steps, and the run."""
    run = Trainer(configure(accumulate=parts, **settings))
    size = run.config.batch
    whole = [collate([run.pairs[step * size + item] for item in range(size)]) for step in range(run.total)]
    return [run.train_step(batch) for batch in whole], run


@pytest.fixture
def plain_convolutions() -> Iterator[None]:
    """Convolutions that round an item alike in a batch of any size. oneDNN's do not, by 1e-7, which the content
    loss's normalisation of nearly silent channels makes 1e-5, and its gradient 1e-4."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield


PARTED = pytest.mark.parametrize("self_pairs", [0.0, 0.25, 0.5, 1.0])
"""Self pairs in 4 parts of a batch of 8: none, one in every other, one in each, nothing else."""


@PARTED
@pytest.mark.usefixtures("plain_convolutions")
def test_a_run_in_parts_has_the_losses_of_a_whole_one(self_pairs: float, configure: Configure) -> None:
    # not 32-pixel crops, of one picture of which the local target (a deviation found by subtracting squares) is so
    # near to rounding alone that this loss differs by 1.5e-5
    settings = {"batch": 8, "crop": 48, "self_pairs": self_pairs}
    (whole, _), (parts, _) = (step_in_parts(configure, count, **settings) for count in (1, 4))
    for step, (one, other) in enumerate(zip(whole, parts, strict=True)):
        assert one.keys() == other.keys()
        for name in one.keys() - {"gradient_norm"}:
            assert other[name] == pytest.approx(one[name], rel=1e-5), f"{name} of step {step}"


@PARTED
@pytest.mark.usefixtures("plain_convolutions")
def test_a_batch_in_parts_has_the_losses_and_the_gradient_of_a_whole_one(
    self_pairs: float, configure: Configure
) -> None:
    settings = {**STYLE_ONLY, "batch": 8, "self_pairs": self_pairs, "content_weight": 1.0, "steps": 1}
    ((one,), run), ((other,), run_in_parts) = (step_in_parts(configure, count, **settings) for count in (1, 4))
    assert other == pytest.approx(one, rel=1e-5)
    whole, parts = (
        torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
        for run in (run, run_in_parts)
    )
    assert float((whole - parts).norm() / whole.norm()) < 1e-5


def test_shares_of_uneven_parts_by_hand(configure: Configure) -> None:
    config = configure(
        **STYLE_ONLY | {"self_pairs": 0.5}, batch=6, styles_per_content=9
    )  # 3 self pairs; parts of 3 hold 2 and 1 of them
    assert loss_shares(config, 0, 2) == (1 / 2, 2 / 3, 1 / 5)  # 1 picture of 1 + 2 x 2
    assert loss_shares(config, 1, 2) == (1 / 2, 1 / 3, 4 / 5)
    batch = first_batch(Trainer(config))
    parts = [batch.micro_batch(index, 2, torch.device("cpu")) for index in range(2)]
    assert [part.n_self_pairs for part in parts] == [2, 1]
    assert all(torch.equal(part.style, batch.style[index::2]) for index, part in enumerate(parts))


@pytest.mark.parametrize(("batch", "processes", "text"), [(5, 2, "4 or 8"), (2, 2, "4"), (10, 4, "8 or 16")])
def test_a_batch_that_does_not_divide_is_refused(batch: int, processes: int, text: str, configure: Configure) -> None:
    config = configure(batch=batch, accumulate=2)
    with pytest.raises(ValueError) as caught:
        Trainer(config, distributed=DistributedContext(0, processes))
    assert str(caught.value) == (
        f"batch is {batch}; it must be a multiple of {2 * processes} ({processes} processes, each with 2 parts one "
        f"after another). Use --batch {text}."
    )


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": 0}, "batch is 0; it must be at least 1"),
        ({"crop": 31}, "crop is 31; it must be at least 32"),
        ({"lr": -1.0}, "lr is -1.0; it must be at least 0"),
        ({"lr": math.nan}, "lr is nan; it must be at least 0"),
        ({"lr": math.inf}, "lr is inf; a finite number is needed"),
        ({"width": math.inf}, "width is inf; a finite number is needed"),
        ({"self_pairs": 1.5}, "self_pairs is 1.5; it must be at most 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"width": 0.0}, "width is 0.0; it must be above 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; known are adam, adamw, muon"),
        ({"precision": "float64"}, "precision is 'float64'; known are auto, float32, bfloat16, float16"),
        ({"architecture": "huge"}, "architecture is 'huge'; known are compact, base"),
        ({"local_levels": ()}, f"local_levels is empty; one or more of {', '.join(LEVELS)} is needed"),
        ({"global_levels": ("conv1",)}, f"global_levels is 'conv1'; one or more of {', '.join(LEVELS)} is needed"),
        (
            {"freeze_encoder": True},
            "freeze_encoder needs architecture base at width 1: the encoder is the VGG-19 itself",
        ),
        ({"frame_gap": 2}, "frame_gap is 2, and only kind video is trained on pairs of frames"),
        (
            {"steps": 0, "distill_steps": 0, "reconstruct_steps": 0},
            "no stage has a step to run; set steps to at least 1",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], text: str, configure: Configure) -> None:
    with pytest.raises(ValueError) as caught:
        configure(**changes)
    assert str(caught.value) == text
