"""`adaattn train`: settings from flags and files, signals, and the module that runs under torchrun."""

from __future__ import annotations

import argparse
import os
import re
import signal
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core.cli import build_parser
from adaattn_core.commands.train import add_settings, read_toml
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.train import Trainer
from adaattn_core.training.config import TrainConfig
from tests.helpers.command_line import call, run
from tests.helpers.tiny_training import skip_plot

Capture = pytest.CaptureFixture[str]


TINY_RUN = """\
content = "photos"
style = "paintings"
vgg = "vgg.pth"
output = "run"
steps = 2
distill-steps = 1
reconstruct_steps = 1
batch = 1
crop = 32
init = "m.safetensors"
self_pairs = 0
vgg_floor = 0
local_samples = 16
local_levels = ["relu3_1"]
workers = 0
device = "cpu"
precision = "float32"
checkpoint_every = 1
"""


@pytest.fixture
def tiny_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """run.toml holds all settings of a run of four steps with a narrow loss network."""
    Path("run.toml").write_text(TINY_RUN)
    vgg = VGGEncoder((8,) * 5)  # the same network each time, as from a file
    monkeypatch.setattr("adaattn_core.training.run_log.plot_losses", skip_plot)
    monkeypatch.setattr("adaattn_core.training.initialization.load_vgg", lambda source: deepcopy(vgg))
    return folder


def test_train_makes_a_model_that_stylizes(tiny_run: Path, capsys: Capture) -> None:
    run("train --config run.toml")
    assert Path(capsys.readouterr().out.strip()) == Path("run/model.safetensors")
    run("stylize photos/sea.png --style paintings/oil.png -o a.png --model run/model.safetensors")
    run("info run/model.safetensors")
    assert re.search(r"^trained: steps +4$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_and_resume_goes_on(
    number: int, code: int, tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def interrupted(self: Trainer, *args: Any) -> dict[str, float]:  # noqa: ANN401
        if self.step == 2:
            os.kill(os.getpid(), number)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert call("train --config run.toml") == code
    assert capsys.readouterr().err == "adaattn: stopped; what is done is in run. Go on with --resume.\n"
    assert torch.load("run/checkpoints/latest.pt", weights_only=True)["step"] == 2
    run("train --config run.toml --resume")
    assert torch.load("run/checkpoints/latest.pt", weights_only=True)["step"] == 4


def test_a_signal_before_the_first_step_ends_quietly(
    tiny_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "initialize", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    assert call("train --config run.toml") == 143
    assert capsys.readouterr().err == "adaattn: stopped; no step was done yet.\n"


def parsed(*words: str) -> dict[str, Any]:
    """The settings that the arguments of a train command give."""
    args = build_parser().parse_args(["train", *words])
    return {field.name: getattr(args, field.name) for field in fields(TrainConfig) if hasattr(args, field.name)}


def test_every_setting_of_a_run_is_a_flag_with_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {int: "7", float: "0.5", str: "x"}
    given = {
        field.name: field.default if isinstance(field.default, tuple | bool) else words[type(field.default)]
        for field in fields(TrainConfig)
        if field.default in (True, False) or isinstance(field.default, tuple | int | float)
    }
    assert len(given) > 20
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        argument = [] if isinstance(value, bool) else [",".join(value) if isinstance(value, tuple) else str(value)]
        assert name in parsed(flag, *argument)
    undocumented = {field.name for field in fields(TrainConfig) if not field.metadata.get("help")}
    assert not undocumented, f"{undocumented} have no help: declare them with option(default, help) in TrainConfig"
    monkeypatch.setenv("COLUMNS", "9999")  # no line breaks
    parser = argparse.ArgumentParser()
    add_settings(parser)
    for field in fields(TrainConfig):
        assert field.metadata["help"] in parser.format_help(), field.name


def test_flags_override_the_file_wherever_they_stand(tiny_run: Path) -> None:
    for words in (("--lr", "0.5", "--config", "run.toml"), ("--config", "run.toml", "--lr", "0.5")):
        settings = parsed(*words, "--no-freeze-encoder")
        assert settings["lr"] == 0.5
        assert settings["freeze_encoder"] is False
        assert settings["local_levels"] == ("relu3_1",)
        assert settings["steps"] == 2


def test_a_file_may_hold_true_and_false(folder: Path) -> None:
    Path("run.toml").write_text("freeze_encoder = true\n")
    assert read_toml("run.toml") == {"freeze_encoder": True}
    assert parsed("--config", "run.toml") == {"freeze_encoder": True}
    assert parsed("--no-freeze-encoder", "--config", "run.toml") == {"freeze_encoder": False}
