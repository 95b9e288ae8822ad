"""Wrong input ends with exit code 2 and one line: what came, what is needed, what to do. Nothing is left behind."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from PIL import Image

from adaattn_core import save_image
from adaattn_core.commands.shared.errors import explain
from tests.helpers.full_disk import fill_disk, needs_full
from tests.helpers.small_models import picture, small_model

Complain = Callable[[str], str]
PAINT = "--style style.png -o out/a.png --model m.safetensors --device cpu"
SEA = "stylize sea.png --style style.png -o out/a.png --device cpu"


# ---------------------------------------------------------------- pictures


def test_no_such_file(complain: Complain) -> None:
    line = "nope.png does not exist. Check its name and folder."
    assert complain(f"stylize nope.png {PAINT}") == line
    assert complain("stylize sea.png --style nope.png -o out/a.png") == line
    assert complain("compare --content sea.png --style nope.png -o out/a.png") == line
    assert complain(f"stylize sea.png {PAINT} --content-mask nope.png") == line
    assert complain(f"stylize sea.png {PAINT} --style-mask nope.png") == line


def test_a_file_that_is_not_a_picture(complain: Complain) -> None:
    Path("a.jpg").write_text("hello")
    assert complain(f"stylize a.jpg {PAINT}") == (
        "a.jpg is not a picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF). "
        "Convert it to PNG first."
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_picture_cut_short(complain: Complain, suffix: str) -> None:
    save_image(picture(64, 64), f"whole{suffix}")
    data = Path(f"whole{suffix}").read_bytes()
    Path(f"cut{suffix}").write_bytes(data[: len(data) // 2])
    line = complain(f"stylize cut{suffix} {PAINT}")
    assert line.startswith(f"cut{suffix} is ")
    assert line.endswith(("Download or export it again.", "Convert it to PNG first."))


def test_a_picture_too_small(complain: Complain) -> None:
    Image.new("RGB", (12, 9)).save("small.png")
    line = "small.png is 12x9 pixels; at least 16x16 are needed. Resize the picture first."
    assert complain(f"stylize small.png {PAINT}") == line
    assert complain("stylize sea.png --style small.png -o out/a.png") == line


def test_a_decompression_bomb(complain: Complain) -> None:
    """A few bytes that say they are 60000x60000 pixels, which would be 40 GiB as float32."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**5))) + chunk(b"IEND", b"")
    Path("bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    assert complain(f"stylize bomb.png {PAINT}") == (
        "bomb.png is 60000x60000 pixels; at most 268 million pixels are read. Resize it first."
    )


def test_a_folder_without_pictures(complain: Complain) -> None:
    Path("empty").mkdir()
    line = "empty holds no picture; at least one is needed. Check the folder or the pattern."
    assert complain(f"stylize empty {PAINT}") == line
    assert complain("stylize sea.png --style empty -o out/a.png") == line
    assert complain(f"stylize 'empty/*.png' {PAINT}") == line.replace("empty", "empty/*.png")


def test_a_mask_of_another_aspect(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaattn_core.commands.stylize.open_model", lambda args: pytest.fail("the error came too late"))
    save_image(picture(48, 24), "mask.png")
    assert complain(f"stylize sea.png {PAINT} --content-mask mask.png") == (
        "the content mask is 24x48 pixels, the content 56x40: another aspect ratio. "
        "Crop or draw the mask to fit the content."
    )
    assert complain(f"stylize sea.png {PAINT} --style-mask mask.png") == (
        "the style mask is 24x48 pixels, the style 32x32: another aspect ratio. Crop or draw the mask to fit the style."
    )


def test_an_empty_style_mask(complain: Complain) -> None:
    save_image(torch.zeros(1, 3, 32, 32), "black.png")
    assert complain(f"stylize sea.png {PAINT} --style-mask black.png") == (
        "the style mask is empty: no part of the style is left to look at. Paint some of it white."
    )


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--strength 1.5", "argument --strength: 1.5 is out of range; it must be between 0 and 1"),
        ("--strength nan", "argument --strength: nan is out of range; it must be between 0 and 1"),
        ("--strength much", "argument --strength: 'much' is not a number"),
        ("--temperature 0", "argument --temperature: 0 is out of range; it must be above 0"),
        ("--max-memory-gb 0", "argument --max-memory-gb: 0 is out of range; it must be above 0"),
        ("--size 8", "argument --size: 8 is out of range; at least 16 pixels are needed"),
        ("--style-size big", "argument --style-size: 'big' is not a whole number"),
        (
            "--style-weights 1,-1",
            "argument --style-weights: 1,-1 is out of range; no weight may be negative, and one must be above 0",
        ),
        ("--attention some", "argument --attention: invalid choice: 'some' (choose from"),
        ("--precision int8", "argument --precision: invalid choice: 'int8' (choose from"),
        ("--colour", "unrecognized arguments: --colour. See adaattn stylize --help."),
    ],
)
def test_an_argument_out_of_its_range(complain: Complain, words: str, expected: str) -> None:
    line = complain(f"stylize sea.png {PAINT} {words}")
    assert line.startswith(expected)
    assert line.endswith("--help.")


def test_arguments_that_are_missing(complain: Complain) -> None:
    assert complain("") == "the following arguments are required: COMMAND. See adaattn --help."
    assert complain("paint").startswith("argument COMMAND: invalid choice: 'paint'")
    assert complain("stylize sea.png") == (
        "the following arguments are required: -o/--output. See adaattn stylize --help."
    )
    assert complain("stylize sea.png -o out/a.png") == ("there is no style. Give --style S, or --region MASK STYLE.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--style style.png --style-weights 1,2", "2 style weights came for 1 style to mix; one is needed for each"),
        (
            "--style styles --style-weights 1,2",
            "2 style weights came for 2 styles to use one by one; one is needed",
        ),
        (
            "--style style.png --style-mask a.png --style-mask b.png",
            "2 style masks came for 1 style; one is needed for each style.",
        ),
        (
            "--style style.png --style styles",
            "--style styles holds 2 pictures; with several --style options, each needs one picture.",
        ),
    ],
)
def test_styles_that_do_not_fit_together(complain: Complain, words: str, expected: str) -> None:
    Path("styles").mkdir()
    for name in "ab":
        save_image(picture(16, 16), f"styles/{name}.png")
    assert complain(f"stylize sea.png {words} -o out").startswith(expected)


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "meta:x", "''"])
def test_an_unknown_device(complain: Complain, device: str) -> None:
    line = complain(f"stylize sea.png --style style.png -o out/a.png --model m.safetensors --device {device}")
    name = device if device != "''" else ""
    assert line.startswith(f"device {name!r} is not there; this machine has ")
    assert line.endswith("cpu. Choose one of these, or auto.")


# ---------------------------------------------------------------- outputs


def test_an_output_that_cannot_be_written(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    """All errors come before a model is loaded."""
    monkeypatch.setattr("adaattn_core.commands.stylize.open_model", lambda args: pytest.fail("the error came too late"))
    stylize = "stylize sea.png --style style.png -o"
    suffixes = "one of .png, .jpg, .jpeg, .webp, .tif, .tiff, .bmp is needed. Rename the output."
    assert complain(f"{stylize} out/a.gif") == f"out/a.gif ends in '.gif'; {suffixes}"
    assert complain(f"{stylize} out/a") == f"out/a has no suffix; {suffixes}"
    assert complain(f"{stylize} nowhere/a.png") == (
        "nowhere is not a folder, so nowhere/a.png cannot be written. Create the folder first."
    )
    assert (
        complain(f"{stylize} no/where/")
        == "no is not a folder, so the output cannot be written there. Create the folder first."
    )
    assert complain(f"{stylize} sea.png/a.png") == (
        "sea.png is not a folder, so sea.png/a.png cannot be written. Create the folder first."
    )
    assert complain("stylize sea.png style.png --style style.png -o nowhere.png") == (
        "nowhere.png is not a folder; a folder is needed for 2 results. Name a folder."
    )
    Path("notes.txt").touch()
    assert complain("stylize sea.png style.png --style style.png -o notes.txt") == (
        "notes.txt is a file; a folder is needed for the output. Choose another name."
    )
    assert not Path("nowhere.png").exists()
    assert (
        complain("compare --content sea.png --style style.png -o out/sheet.txt")
        == f"out/sheet.txt ends in '.txt'; {suffixes}"
    )


def test_a_folder_that_may_not_be_written_to(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: nothing is forbidden to root, who runs tests in containers."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    line = "out is not writable. Choose another folder, or change its permissions."
    for command in (SEA, "stylize sea.png --style style.png -o out", "convert x --encoder y -o out/m.safetensors"):
        assert complain(command) == line


def test_the_folder_of_a_report_is_checked_before_networks_are_loaded(
    complain: Complain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.commands.evaluate.load_metric_suite", NotImplemented)
    line = "nowhere is not a folder, so the output cannot be written there. Create the folder first."
    assert complain("evaluate --content sea.png --style style.png -o nowhere/report") == line


def test_an_input_is_not_overwritten(complain: Complain) -> None:
    before = Path("sea.png").read_bytes()
    line = "sea.png is one of the input pictures and would be overwritten. Choose another output."
    assert complain("stylize sea.png --style style.png -o sea.png") == line
    assert complain("stylize sea.png style.png --style style.png -o .") == line
    assert complain("stylize style.png --style style.png --content-mask sea.png -o sea.png") == line
    assert complain("compare --content sea.png --style style.png -o sea.png") == line
    assert complain("compare --content style.png --style . -o sea.png") == line
    assert Path("sea.png").read_bytes() == before


@needs_full
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (f"{SEA} --model m.safetensors", "out/a.png"),
        ("compare --content sea.png --style style.png -o out/a.jpg --size 16 --model m.safetensors", "out/a.jpg"),
        ("convert published --encoder vgg.pth -o out/a.safetensors", "out/a.safetensors"),
    ],
)
def test_a_full_disk(complain: Complain, monkeypatch: pytest.MonkeyPatch, command: str, name: str) -> None:
    fill_disk(monkeypatch, Path(name))
    monkeypatch.setattr("adaattn_core.commands.convert.convert_published", lambda source, encoder: small_model())
    assert complain(command) == f"disk full while writing {name}. Free some space or choose another disk."


def test_a_disk_that_fails_at_the_last_moment(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: object, target: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", failing)
    assert complain(f"{SEA} --model m.safetensors") == (
        "disk full while writing out/a.png. Free some space or choose another disk."
    )


def test_ctrl_c_leaves_nothing_behind(complain: Callable[[str, int], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: object, target: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert complain(f"{SEA} --model m.safetensors", 130) == "interrupted"


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("steps = ", "run.toml cannot be used: Invalid value"),
        (
            "stepz = 5",
            "run.toml cannot be used: it has a setting 'stepz'; known are content, style, vgg, output, steps",
        ),
        ("[train]\nsteps = 5", "run.toml cannot be used: it has a setting 'train'; known are content"),
        ("steps = 'many'", "argument --steps: invalid int value: 'many'"),
        ("optimizer = 'sgd'", "argument --optimizer: invalid choice: 'sgd'"),
        ("[style]\na = 1", "run.toml cannot be used: style is a table; a plain value is needed"),
    ],
)
def test_a_config_file_that_cannot_be_used(complain: Complain, toml: str, expected: str) -> None:
    Path("run.toml").write_text(toml)
    assert complain("train --config run.toml").startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--config none.toml", "none.toml cannot be used: No such file or directory. See"),
        ("--content a", "--style, --output missing. Set each by its flag or in a --config file."),
        ("--content a --style b --vgg c --output d --crop 16", "crop is 16; it must be at least 32"),
        ("--content a --style b --vgg c --output d --device tpu9", "device 'tpu9' is not there; this machine has"),
        ("--content a --style b --vgg c --output d --device cpu", "a does not exist. Check its name and folder."),
        ("--content . --style . --vgg c.pth --output d --device cpu", "c.pth: no such weights file. Check the path."),
        (
            "--content . --style . --vgg c.pth --output d --resume",
            "d/checkpoints/latest.pt: no checkpoint to resume from.",
        ),
    ],
)
def test_a_run_that_cannot_start(complain: Complain, words: str, expected: str) -> None:
    assert complain(f"train {words}").startswith(expected)
    assert not Path("d").exists()


# ---------------------------------------------------------------- errors of other kinds


def test_an_unexpected_error_is_one_line_too() -> None:
    assert explain(ZeroDivisionError("division\nby zero")) == (
        1, "unexpected ZeroDivisionError: division by zero. Please report this error with the output of --verbose.",
    )  # fmt: skip
    assert explain(PermissionError(errno.EACCES, "Permission denied", "runs")) == (
        2, "runs: Permission denied. Check the path and its permissions.",
    )  # fmt: skip
    assert explain(OSError(errno.ENOSPC, "No space left on device")) == (
        2, "disk full. Free some space or choose another disk.",
    )  # fmt: skip
    for error in (torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()):
        assert explain(error)[1].startswith(
            "out of memory. Make the pictures smaller (--size; in training --crop or --batch), or"
        )
