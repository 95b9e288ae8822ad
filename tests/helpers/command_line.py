"""Command lines that have to succeed, with a small model."""

from __future__ import annotations

import shlex

from adaattn_core.cli import main

MODEL = "--model m.safetensors --device cpu --precision float32"
"""Such that the library gives the same pixels."""
OIL = f"--style paintings/oil.png {MODEL}"


def call(line: str) -> int:
    return main(shlex.split(line))


def run(line: str) -> None:
    """A command that has to succeed."""
    assert call(line) == 0
