"""`adaattn compare`, `convert` and `info`, and what all commands share: help, version, tracebacks, closed pipes."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

import adaattn_core
from adaattn_core import load_image, load_model, save_model
from adaattn_core.benchmarking.inference import SUBJECTS
from adaattn_core.cli import COMMANDS, main
from adaattn_core.commands.compare import center_square, comparison_sheet
from tests.helpers.command_line import MODEL, call, run
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

Capture = pytest.CaptureFixture[str]
ROUNDING = 0.5 / 255 + 1e-6
"""A PNG holds 8 bits."""


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


# ---------------------------------------------------------------- convert


@pytest.mark.parametrize(("precision", "kind"), [("float32", "image"), ("float16", "video")])
def test_convert_writes_a_model_with_its_licence(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, precision: str, kind: str
) -> None:
    """convert_published itself is tested with files of the published sizes in test_published.py."""
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


def test_convert_creates_the_folder_of_the_base_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAATTN_MODELS", str(folder / "models"))
    monkeypatch.setattr("adaattn_core.commands.convert.convert_published", lambda source, encoder: small_model())
    run(f"convert published --encoder vgg.pth -o '{folder}/models/adaattn_published.safetensors'")
    assert adaattn_core.load_model("published").config == SMALL


# ---------------------------------------------------------------- info and the rest


def test_info_describes_this_machine(capsys: Capture) -> None:
    run("info")
    output = capsys.readouterr().out
    assert re.search(rf"^adaattn +{re.escape(adaattn_core.__version__)}$", output, re.MULTILINE)
    assert re.search(r"^cpu +\d+ threads on \d+ cores, native bfloat16: (yes|no)$", output, re.MULTILINE)
    assert re.search(r"^model compact +\S", output, re.MULTILINE)
    assert re.search(r"^model published +\S", output, re.MULTILINE)


def test_info_describes_a_model_file(folder: Path, capsys: Capture) -> None:
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
    monkeypatch.setenv("COLUMNS", "300")  # no summary is broken; argparse puts that of a long name on the next line
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert command.__doc__ is not None
        assert re.search(rf"^    {name}\s+{re.escape(command.__doc__.splitlines()[0])}", output, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: adaattn {name}" in capsys.readouterr().out


def test_help_of_a_command_without_refinement_does_not_mention_it(capsys: Capture) -> None:
    for name in ("video", "attention"):
        assert main([name, "--help"]) == 0
        assert "efine" not in capsys.readouterr().out, name


def test_help_has_a_space_between_the_name_and_the_description_of_a_subject(capsys: Capture) -> None:
    assert main(["bench", "--help"]) == 0
    lines = capsys.readouterr().out.partition("subjects:\n")[2].splitlines()
    assert [line.split("  ")[1] for line in lines] == list(SUBJECTS)


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


MISSING = "adaattn: --style, --output missing. Set each by its flag or in a --config file.\n"


def test_the_package_runs_as_a_program(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(adaattn_core.__file__).parents[1])}
    command = [sys.executable, "-m", "adaattn_core", "train", "--content", "photos"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", MISSING)


def test_the_train_module_runs_as_the_train_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delitem(sys.modules, "adaattn_core.train", raising=False)  # not yet imported
    monkeypatch.setattr(sys, "argv", ["train.py", "--content", "photos"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("adaattn_core.train", run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err == MISSING
