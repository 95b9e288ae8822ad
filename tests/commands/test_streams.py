"""Pipes, `-` and /dev/fd/N as inputs and outputs give the same results as files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adaattn_core import load_image, save_image
from tests.helpers.command_line import MODEL, OIL, run
from tests.helpers.small_models import picture

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes with names are those of POSIX")
A = f'"{sys.executable}" -m adaattn_core'
ROOT = Path(__file__).parents[2]


def shell(line: str, code: int = 0) -> tuple[bytes, str]:
    """Runs a line in bash; returns standard output, and standard error as text."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout, done.stderr.decode()


@pytest.fixture
def expected(folder: Path) -> bytes:
    """The result of files."""
    run(f"stylize photos/sea.png -o expected.png {OIL}")
    return pixels("expected.png")


def pixels(path: str) -> bytes:
    return load_image(path).numpy().tobytes()


@pytest.mark.slow
def test_pipes_and_standard_streams_are_inputs_and_outputs(folder: Path, expected: bytes) -> None:
    mask = "--content-mask <(cat white.png)"
    save_image(picture(40, 56) * 0 + 1, "white.png")
    shell(f"{A} stylize <(cat photos/sea.png) --style <(cat paintings/oil.png) -o a.png {mask} {MODEL}")
    assert pixels("a.png") == expected
    output, errors = shell(f"cat photos/sea.png | {A} stylize - -o - {OIL} | cat")
    Path("b.png").write_bytes(output)
    assert pixels("b.png") == expected
    assert errors.startswith("/dev/stdout  56x40  "), "the summary does not mix with the picture"
    shell(f"{A} stylize /dev/fd/5 -o /dev/fd/6 {OIL} 5< photos/sea.png 6> c.png")
    assert pixels("c.png") == expected


@pytest.mark.slow
def test_a_terminal_and_a_closed_descriptor_are_errors_in_one_line(folder: Path) -> None:
    _, errors = shell(f"{A} stylize /dev/fd/9 -o a.png {OIL}", code=2)
    assert errors.startswith("adaattn: argument CONTENT: /dev/fd/9 cannot be read: Bad file descriptor.")
    _, errors = shell(f"{A} stylize photos/sea.png -o /dev/fd/9 {OIL}", code=2)
    assert errors == "adaattn: /dev/fd/9 is not open. Redirect it, or name a file.\n"
    _, errors = shell(f"{A} stylize photos -o - {OIL} | cat; exit ${{PIPESTATUS[0]}}", code=2)
    assert errors == "adaattn: /dev/stdout is not a folder; a folder is needed for 2 results. Name a folder.\n"
    _, errors = shell(f"echo text | {A} stylize - -o a.png {OIL}", code=2)
    assert errors.startswith("adaattn: /dev/stdin is not a picture")


def test_a_named_pipe_is_an_input_and_an_output(folder: Path, expected: bytes) -> None:
    for name in ("in.png", "out.png"):
        os.mkfifo(name)
    received: list[bytes] = []
    writer = threading.Thread(target=lambda: Path("in.png").write_bytes(Path("photos/sea.png").read_bytes()))
    reader = threading.Thread(target=lambda: received.append(Path("out.png").read_bytes()))
    for thread in (writer, reader):
        thread.start()
    run(f"stylize in.png -o out.png {OIL}")
    for thread in (writer, reader):
        thread.join()
    Path("copy.png").write_bytes(received[0])
    assert pixels("copy.png") == expected
    assert Path("out.png").is_fifo(), "a pipe stays a pipe"
