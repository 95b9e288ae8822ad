"""Weights files that cannot be used end a command with one line, and code in a pickle is never executed."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaattn_core.checkpoints.tensor_file import read_metadata
from adaattn_core.cli import LineFormatter, main

Complain = Callable[[str], str]
SEA = "stylize sea.png --style style.png -o out/a.png --device cpu"


def test_an_unknown_model(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    known = "unknown model 'huge'; known are base, compact, compact-0.1, published, or a .safetensors file."
    for command in (
        f"{SEA} --model huge",
        "info huge",
        "compare --content sea.png --style style.png -o out/a.jpg --model huge",
    ):
        assert complain(command) == known
    assert complain("info huge.safetensors") == "huge.safetensors: no such weights file. Check the path."
    monkeypatch.setenv("ADAATTN_MODELS", "nowhere")
    line = complain("info published")
    assert line.startswith(f"no published model at {Path('nowhere', 'adaattn_published.safetensors')} or ")
    assert "adaattn convert FOLDER --encoder vgg_normalised.pth -o " in line


def test_an_empty_weights_file(complain: Complain) -> None:
    Path("cut.safetensors").touch()
    assert complain("info cut.safetensors") == "cut.safetensors is empty. Download or export it again."


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_weights_file(complain: Complain, share: float) -> None:
    data = Path("m.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(data[: int(share * len(data))])
    line = "cut.safetensors is truncated or no safetensors file. Get it again."
    assert complain(f"{SEA} --model cut.safetensors") == line
    assert complain("info cut.safetensors") == line


def test_weights_of_another_architecture(complain: Complain) -> None:
    save_file({"weight": torch.zeros(3)}, "other.safetensors")
    assert complain(f"{SEA} --model other.safetensors") == (
        "other.safetensors is not an AdaAttN model file (no format 'adaattn' in its metadata). "
        "Choose a model that AdaAttN has saved."
    )


def test_weights_that_do_not_fit_their_config(complain: Complain) -> None:
    tensors, metadata = load_file("m.safetensors"), read_metadata("m.safetensors")
    name = "fusion.merge_conv.bias"
    save_file({key: value for key, value in tensors.items() if key != name}, "less.safetensors", metadata)
    save_file({**tensors, "more": torch.zeros(1)}, "more.safetensors", metadata)
    save_file({**tensors, name: torch.zeros(5)}, "shape.safetensors", metadata)
    doubts = "Is it the right file?"
    assert (
        complain(f"{SEA} --model less.safetensors")
        == f"less.safetensors does not fit the model: {name} is missing. {doubts}"
    )
    assert (
        complain(f"{SEA} --model more.safetensors")
        == f"more.safetensors does not fit the model: more does not belong. {doubts}"
    )
    assert complain(f"{SEA} --model shape.safetensors") == (
        f"shape.safetensors does not fit the model: {name} has shape (5,) instead of (12,). {doubts}"
    )


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}x",
        json.dumps({"channels": ["a", 1, 2, 3, 4]}),
        json.dumps({"channels": [4, 4]}),
        json.dumps({"channels": 4}),
        json.dumps({"channels": [4, 4, 8, 8, -8]}),
        json.dumps({"levels": ["relu9_1"]}),
        json.dumps({"decoder_convs": [1]}),
        json.dumps({"projection_channels": ["a", "b", "c"]}),
        json.dumps({"colour": "blue"}),
    ],
)
def test_weights_with_an_invalid_config(complain: Complain, config: str) -> None:
    metadata = {**read_metadata("m.safetensors"), "config": config}
    save_file(load_file("m.safetensors"), "odd.safetensors", metadata)
    assert complain("info odd.safetensors").startswith("odd.safetensors has a config that cannot be read: ")


class Dangerous:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("executed.txt", "w")


def write_pickle(path: str) -> None:
    if path.endswith(".pth"):
        torch.save({"0.weight": Dangerous()}, path)
    else:
        Path(path).write_bytes(pickle.dumps(Dangerous()))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.ckpt", "evil.safetensors", "evil.bin"])
def test_a_pickle_with_code_is_refused_and_never_executed(complain: Complain, name: str) -> None:
    write_pickle(name)
    assert complain(f"{SEA} --model {name}").startswith(f"{name} is ")
    assert not Path("executed.txt").exists()


@pytest.mark.parametrize("name", ["latest_net_transformer.pth", "latest_net_decoder.pth"])
def test_convert_refuses_a_pickle_with_code(complain: Complain, name: str) -> None:
    Path("published").mkdir()
    for file in ("latest_net_transformer.pth", "latest_net_decoder.pth"):
        torch.save({"f.weight": torch.zeros(1)}, f"published/{file}")
    write_pickle(f"published/{name}")
    line = complain("convert published --encoder vgg.pth -o out/new.safetensors")
    assert line == (
        f"{Path('published', name)} is a pickle that holds more than tensors, or is damaged; it was not executed. "
        "Get the file from its author as safetensors or as a plain state dict."
    )
    assert not Path("executed.txt").exists()


def test_convert_reports_missing_files_and_wrong_names(complain: Complain) -> None:
    assert complain("convert nowhere --encoder vgg.pth -o out/new.safetensors") == (
        "nowhere: no such folder. Name the folder that holds latest_net_transformer.pth and latest_net_decoder.pth."
    )
    assert complain("convert out --encoder vgg.pth -o out/new.pth") == (
        "out/new.pth does not end in .safetensors, as a model file has to. Rename the output."
    )
    assert complain("convert out --encoder vgg.pth -o nowhere/new.safetensors") == (
        "nowhere is not a folder, so the output cannot be written there. Create the folder first."
    )
    assert complain("convert out --encoder vgg.pth -o out/new.safetensors") == (
        f"{Path('out', 'latest_net_transformer.pth')}: no such weights file. Check the path."
    )


# ---------------------------------------------------------------- names that would command the terminal

TITLE = "\x1b]0;owned\x07"


def test_info_shows_metadata_that_cannot_command_the_terminal(
    small_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = {**read_metadata("m.safetensors"), "license": TITLE, "trained_on": json.dumps({TITLE: "x" * 100_000})}
    save_file(load_file("m.safetensors"), "odd.safetensors", metadata)
    assert main(["info", "odd.safetensors"]) == 0
    output, _ = capsys.readouterr()
    assert "\x1b" not in output and "\\x1b]0;owned\\x07" in output
    assert max(map(len, output.splitlines())) < 11_000


def test_lines_on_stderr_cannot_command_the_terminal(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["stylize", f"{TITLE}.png", "--style", "style.png", "-o", "out/a.png"], ["info", f"{TITLE}\n"],
                      [f"{TITLE}\n"], ["info", "a" * 100_000 + ".safetensors"]):  # fmt: skip
        assert main(arguments) == 2
        _, errors = capsys.readouterr()
        assert "\x1b" not in errors and errors.count("\n") == 1 and len(errors) < 3000
    record = logging.LogRecord("a", logging.WARNING, "", 0, "skipped %s", (TITLE,), None)
    assert LineFormatter("adaattn: %(message)s").format(record) == "adaattn: skipped \\x1b]0;owned\\x07"
