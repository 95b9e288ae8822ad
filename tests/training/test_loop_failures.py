"""Errors and warnings of a training run: one line each, and no loss of what was saved."""

from __future__ import annotations

import csv
import logging
import math
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import adaattn_core.training.initialization
import adaattn_core.training.objective
from adaattn_core.cli import main
from adaattn_core.errors import DataError, ImageError, OutputError
from adaattn_core.models.encoder import Features
from adaattn_core.train import Trainer, TrainingError
from adaattn_core.training.dataset import Batch
from adaattn_core.training.loop import train
from adaattn_core.training.losses import global_style_loss
from adaattn_core.training.run_checkpoint import CHECKPOINT, MODEL, read_checkpoint
from adaattn_core.training.run_log import COLUMNS, RunLogger
from tests.helpers.tiny_tiffs import REPORTS
from tests.helpers.training_runs import STYLE_ONLY, Configure, assert_same_files, stop_before

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


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


def test_diverged_weights_are_not_saved(configure: Configure) -> None:
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
def test_lack_of_memory_is_reported_in_one_line(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        raise error

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(TrainingError) as caught:
        train(configure())
    assert str(caught.value) == "step 0: cpu has no memory left. Make --batch (now 2) or --crop (now 32) smaller."


def test_unreadable_pictures_are_named_once(
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
    assert warnings == [
        f"skipped picture 1: {content / 'broken.jpg'} is not a picture that can be read "
        "(PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF). Convert it to PNG first."
    ]
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["skipped"] == [str(content / "broken.jpg")]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_ignored_of_a_picture_is_said_once_with_its_name(
    configure: Configure, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    content = shutil.copytree(pictures / "content", tmp_path / f"content{workers}")
    shutil.copy(REPORTS / "lab.tif", content)
    shutil.copy(REPORTS / "anim.gif", content)
    train(configure(content=str(content), workers=workers))
    warnings = sorted(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warnings == [
        f"{content / 'anim.gif'}: the first of its 3 frames is used; "
        f"adaattn video {content / 'anim.gif'} --style S -o OUT.mp4 paints them all",
        f"{content / 'lab.tif'}: embedded colour profile ignored: the profile is for Lab, the picture is RGB",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_only_unreadable_pictures_are_an_error_of_one_line(workers: int, configure: Configure, tmp_path: Path) -> None:
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
def test_fewer_pictures_than_a_batch_cause_a_warning(
    batch: int, told: bool, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(batch=batch, steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    for folder in (config.content, config.style):
        assert (f"{folder} holds 2 picture(s), fewer than the 4 pairs of a step" in caplog.text) == told


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


def test_a_second_process_in_a_run_folder_is_refused_and_loses_nothing(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process is another descriptor of the lock, as a process of its own would have."""
    config, step = configure(), Trainer.train_step
    refusals: list[str] = []

    def train_twice(run: Trainer, batch: Batch) -> dict[str, float]:
        if not refusals:
            with pytest.raises(OutputError) as refused:
                train(configure(steps=9))
            refusals.append(str(refused.value))
        return step(run, batch)

    monkeypatch.setattr(Trainer, "train_step", train_twice)
    train(config)
    assert refusals == [
        f"{config.output} is in use: process {os.getpid()} on {platform.node()} trains there. Wait until it has ended, "
        "or choose another --output."
    ]
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == config.total_steps
    assert not list(Path(config.output).glob(".running*"))
    train(configure(steps=config.steps + 1), resume=True)
