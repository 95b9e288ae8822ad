"""Each command does its job on small pictures; what it does to wrong input is in test_errors.py."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import adaattn_core
from adaattn_core import load_image, load_model, save_image, save_model
from adaattn_core.cli import COMMANDS, build_parser, main
from adaattn_core.commands import options as shared_options
from adaattn_core.commands import stylize as stylize_command
from adaattn_core.commands.stylize import distinct_names
from adaattn_core.commands.train import add_settings, read_toml
from adaattn_core.inference.comparison_grid import center_square, comparison_sheet
from adaattn_core.inference.stylize import encode_style, stylize
from adaattn_core.io.images import load_alpha
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.ops.resize import resize_image
from adaattn_core.train import Trainer
from adaattn_core.training.config import TrainConfig
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model
from tests.helpers.tiny_training import skip_plot

Capture = pytest.CaptureFixture[str]
ROUNDING = 0.5 / 255 + 1e-6
"""A PNG holds 8 bits."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: contents in photos/, styles in paintings/, m.safetensors, and out/ for results."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/north", "paintings", "out"):
        Path(name).mkdir(parents=True)
    save_image(picture(40, 56, seed=1), "photos/sea.png")
    save_image(picture(36, 36, seed=2), "photos/hill.png")
    save_image(picture(48, 32, seed=3), "paintings/oil.png")
    save_image(picture(40, 64, seed=4), "paintings/ink.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


def call(line: str) -> int:
    return main(shlex.split(line))


def run(line: str) -> None:
    """A command that has to succeed."""
    assert call(line) == 0


MODEL = "--model m.safetensors --device cpu --precision float32"
"""Such that the library gives the same pixels."""
OIL = f"--style paintings/oil.png {MODEL}"


def painted(content: str, *styles: str, **options: Any) -> Tensor:  # noqa: ANN401 - stylize checks them
    """What the library makes of these files."""
    pictures = [load_image(f"paintings/{style}.png") for style in styles]
    return stylize(load_model("m.safetensors"), load_image(f"photos/{content}.png"), pictures, **options)


def assert_holds(path: str, expected: Tensor) -> None:
    found = load_image(path)
    assert found.shape == expected.shape
    difference = (found - expected).abs()
    assert float(difference.max()) <= ROUNDING, f"max {difference.max():.4f}, mean {difference.mean():.4f}"


# ---------------------------------------------------------------- stylize


def test_one_picture_is_written_and_named_on_one_line(folder: Path, capsys: Capture) -> None:
    run(f"stylize photos/sea.png -o result.png {OIL}")
    assert_holds("result.png", painted("sea", "oil"))
    output, errors = capsys.readouterr()
    assert re.fullmatch(r"result\.png  56x40  \d+\.\d s\n", output)
    assert errors == ""


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--strength 0.4", {"strength": 0.4}),
        ("--temperature 3", {"temperature": 3.0}),
        ("--keep-color", {"keep_color": True}),
        ("--max-memory-gb 0.001", {"max_memory_gb": 0.001}),
        ("--attention sampled --seed 3", {"attention": "sampled", "seed": 3}),
    ],
)
def test_options_reach_the_library(folder: Path, words: str, options: dict[str, Any]) -> None:
    run(f"stylize photos/sea.png -o a.png {OIL} {words}")
    assert_holds("a.png", painted("sea", "oil", **options))


def test_seed_and_attention_reach_the_style(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small styles are below the number of samples, so the pictures above would not show it."""
    seen: list[tuple[object, object]] = []

    def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        seen.append((options["attention"], options["seed"]))
        return encode_style(*args, **options)

    monkeypatch.setattr(shared_options, "encode_style", watched)
    run(f"stylize photos -o out --attention sampled --seed 3 {OIL}")
    assert seen == [("sampled", 3)], "once for all contents"


def test_several_styles_are_mixed(folder: Path) -> None:
    run(f"stylize photos/sea.png -o a.png {OIL} --style paintings/ink.png --style-weights .7,.3")
    assert_holds("a.png", painted("sea", "oil", "ink", style_weights=[0.7, 0.3]))


def test_a_folder_of_contents_fills_a_folder(folder: Path, capsys: Capture) -> None:
    save_image(picture(32, 32, seed=5), "photos/north/sea.jpg")
    run(f"stylize photos -o out/ {OIL}")
    assert {path.name for path in Path("out").iterdir()} == {"sea.png", "sea-2.png", "hill.png"}
    assert_holds("out/hill.png", painted("hill", "oil"))
    output, errors = capsys.readouterr()
    assert re.fullmatch(r"3 pictures in out/  \d+\.\d s\n", output)
    assert errors == "", "a progress bar is for terminals"


def test_one_content_goes_into_a_folder_that_exists(folder: Path) -> None:
    run(f"stylize photos/sea.png -o out {OIL}")
    assert_holds("out/sea.png", painted("sea", "oil"))


def test_each_style_of_a_folder_is_used_alone(folder: Path) -> None:
    run(f"stylize 'photos/*.png' --style paintings -o out {MODEL}")
    names = {f"{content}__{style}.png" for content in ("sea", "hill") for style in ("oil", "ink")}
    assert {path.name for path in Path("out").iterdir()} == names
    assert_holds("out/hill__ink.png", painted("hill", "ink"))


def test_size_is_the_short_side_of_the_content(folder: Path) -> None:
    run(f"stylize photos/sea.png -o a.png --size 20 {OIL}")
    content = resize_image(load_image("photos/sea.png"), short_side=20)
    assert content.shape == (1, 3, 20, 28)
    assert_holds("a.png", stylize(load_model("m.safetensors"), content, load_image("paintings/oil.png")))


@pytest.mark.parametrize(("style_size", "side"), [("20", 20), ("64", 32), ("0", 32)])
def test_style_size_only_reduces(folder: Path, style_size: str, side: int) -> None:
    run(f"stylize photos/sea.png -o a.png --style-size {style_size} {OIL}")
    style = resize_image(load_image("paintings/oil.png"), short_side=side)
    assert_holds("a.png", stylize(load_model("m.safetensors"), load_image("photos/sea.png"), style))


def test_content_mask_says_where(folder: Path) -> None:
    left = torch.zeros(1, 3, 40, 56)
    left[..., :28] = 1
    save_image(left, "mask.png")
    run(f"stylize photos/sea.png -o a.png --content-mask mask.png {OIL}")
    assert_holds("a.png", painted("sea", "oil", content_mask=left[:, :1]))
    assert torch.equal(load_image("a.png")[..., 28:], load_image("photos/sea.png")[..., 28:])


def test_style_masks_belong_to_the_styles(folder: Path) -> None:
    top = torch.zeros(1, 3, 20, 32)
    top[..., :10, :] = 1
    save_image(top, "mask.png")
    run(f"stylize photos/sea.png -o a.png {OIL} --style paintings/ink.png --style-mask none --style-mask mask.png")
    assert_holds("a.png", painted("sea", "oil", "ink", style_masks=[None, top[:, :1]]))


def test_transparency_is_kept(folder: Path) -> None:
    alpha = torch.zeros(1, 1, 40, 56)
    alpha[..., 16:] = 1
    save_image(picture(40, 56), "cut.png", alpha=alpha)
    run(f"stylize cut.png -o a.png --size 20 {OIL}")
    found = load_alpha("a.png")
    assert found is not None
    assert found.shape == (1, 1, 20, 28)
    assert float(found[..., :6].max()) == 0
    assert float(found[..., 10:].min()) == 1


def test_a_broken_content_does_not_stop_the_others(folder: Path, capsys: Capture) -> None:
    Path("photos/bad.png").write_bytes(Path("photos/sea.png").read_bytes()[:200])
    assert call(f"stylize photos -o out {OIL}") == 2
    assert {path.name for path in Path("out").iterdir()} == {"sea.png", "hill.png"}
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(
        "adaattn: 1 of 3 pictures failed, the others are done. The first failure: photos/bad.png is damaged"
    )
    assert errors.count("\n") == 1


def test_running_out_of_memory_does_not_stop_the_others(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(model: object, content: Tensor, *args: object, **options: object) -> Tensor:
        if content.shape[-1] == 56:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
            )
        return content

    monkeypatch.setattr(stylize_command, "stylize", short_of_memory)
    assert call(f"stylize photos -o out {OIL}") == 2
    assert [path.name for path in Path("out").iterdir()] == ["hill.png"]
    assert "1 of 2 pictures failed, the others are done. The first failure: out of memory." in capsys.readouterr().err


def test_names_stay_apart_from_names_that_look_numbered() -> None:
    assert list(distinct_names(["a", "a", "a-2", "A"])) == ["a.png", "a-2.png", "a-2-2.png", "A-3.png"]


# ---------------------------------------------------------------- compare


def test_compare_paints_a_grid(folder: Path, capsys: Capture) -> None:
    run(f"compare --content photos --style 'paintings/*.png' -o sheet.png --size 32 {MODEL}")
    sheet = load_image("sheet.png")
    assert sheet.shape == (1, 3, 3 * 32 + 2 * 4, 3 * 32 + 2 * 4)
    assert re.fullmatch(r"sheet\.png  104x104  \d+\.\d s\n", capsys.readouterr().out)
    contents = [center_square(load_image(f"photos/{name}.png"), 32) for name in ("hill", "sea")]
    styles = [center_square(load_image(f"paintings/{name}.png"), 32) for name in ("ink", "oil")]
    expected = comparison_sheet(load_model("m.safetensors"), contents, styles)
    assert float((sheet - expected).abs().max()) <= ROUNDING


def test_a_sheet_has_contents_left_styles_on_top_and_white_between() -> None:
    model = small_model()
    contents, styles = [picture(16, 20, seed=1), picture(16, 20, seed=2)], [picture(16, 20, seed=3)]
    sheet = comparison_sheet(model, contents, styles, gap_px=2)
    assert sheet.shape == (1, 3, 3 * 16 + 2 * 2, 2 * 20 + 2)
    assert bool((sheet[..., :18, :20] == 1).all()), "corner"
    assert bool((sheet[..., 16:18, :] == 1).all()), "gap"
    assert torch.equal(sheet[..., 36:, :20], contents[1])
    assert torch.equal(sheet[..., :16, 22:], styles[0])
    assert torch.allclose(sheet[..., 36:, 22:], stylize(model, contents[1], styles[0]), atol=1e-5)


def test_a_square_is_the_middle_of_a_picture() -> None:
    image = picture(32, 48)
    assert torch.equal(center_square(image, 32), image[..., 8:40])


# ---------------------------------------------------------------- convert


@pytest.mark.parametrize(("precision", "kind"), [("float32", "image"), ("float16", "video")])
def test_convert_writes_a_model_with_its_licence(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, precision: str, kind: str
) -> None:
    """What convert_published itself does is tested with files of the published sizes, in test_published.py."""
    model = small_model(config=SMALL if kind == "image" else SMALL_VIDEO)
    asked: list[tuple[str, str]] = []

    def converted(source: str, encoder: str) -> adaattn_core.StyleTransferModel:
        asked.append((source, encoder))
        return model

    monkeypatch.setattr("adaattn_core.commands.convert.convert_published", converted)
    run(f"convert published --encoder vgg.pth -o new.safetensors --precision {precision}")
    assert asked == [("published", "vgg.pth")]
    assert capsys.readouterr().out.startswith(f"new.safetensors  {kind} model  0.0 M parameters  0.")
    with safe_open("new.safetensors", "pt") as file:
        assert file.metadata()["license"] == "Apache-2.0"
        assert file.metadata()["trained_on"] == "published AdaAttN checkpoints"
        assert str(file.get_tensor("encoder.conv0.weight").dtype) == f"torch.{precision}"


def test_convert_makes_the_folder_where_base_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAATTN_MODELS", str(folder / "models"))
    monkeypatch.setattr("adaattn_core.commands.convert.convert_published", lambda source, encoder: small_model())
    run(f"convert published --encoder vgg.pth -o '{folder}/models/adaattn_base.safetensors'")
    assert adaattn_core.load_model("base").config == SMALL


# ---------------------------------------------------------------- train


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
    """run.toml says all of a run of four steps against a narrow loss network."""
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
    """What a train command would be run with."""
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


# ---------------------------------------------------------------- info and the rest


def test_info_tells_about_this_machine(capsys: Capture) -> None:
    run("info")
    output = capsys.readouterr().out
    assert re.search(rf"^adaattn +{re.escape(adaattn_core.__version__)}$", output, re.MULTILINE)
    assert re.search(r"^cpu +\d+ threads on \d+ cores, native bfloat16: (yes|no)$", output, re.MULTILINE)
    assert re.search(r"^model compact +\S", output, re.MULTILINE)
    assert re.search(r"^model base +\S", output, re.MULTILINE)


def test_info_tells_what_a_file_holds(folder: Path, capsys: Capture) -> None:
    model = small_model()
    save_model(model, "n.safetensors", metadata={"license": "CC0-1.0", "trained_on": "noise"})
    run("info n.safetensors")
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    count = sum(weight.numel() for weight in model.parameters())
    assert facts["parameters"].startswith(f"{count:,}: encoder ")
    assert facts["stored as"] == "float16"
    assert facts["size"] == f"{Path('n.safetensors').stat().st_size / 1e6:.2f} MB"
    assert facts["channels"] == "(6 8 10 12 12)"
    assert (facts["license"], facts["trained on"]) == ("CC0-1.0", "noise")
    assert re.fullmatch(r"[0-9a-f]{12}, of the encoder [0-9a-f]{12}", facts["fingerprint"])


def test_help_lists_the_commands(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # a line for each
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert command.__doc__ is not None
        assert re.search(rf"^    {name} +{re.escape(command.__doc__.splitlines()[0])}", output, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: adaattn {name}" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"adaattn {adaattn_core.__version__}\n"


def test_verbose_shows_the_traceback(folder: Path, capsys: Capture) -> None:
    for line in ("--verbose info nothing", "info nothing --verbose"):
        assert call(line) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("Traceback")
        assert errors.splitlines()[-1].startswith("adaattn: unknown model 'nothing'")


def test_a_closed_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def closed() -> dict[str, str]:
        raise BrokenPipeError

    monkeypatch.setattr("adaattn_core.commands.info.describe_machine", closed)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == ""


MISSING = "adaattn: --style, --vgg, --output missing. Give them as flags or in a --config file.\n"


def test_the_package_runs_as_a_program(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(adaattn_core.__file__).parents[1])}
    command = [sys.executable, "-m", "adaattn_core", "train", "--content", "photos"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", MISSING)


def test_the_train_module_runs_as_the_train_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delitem(sys.modules, "adaattn_core.train")  # as in a process that has not imported it
    monkeypatch.setattr(sys, "argv", ["train.py", "--content", "photos"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("adaattn_core.train", run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err == MISSING
