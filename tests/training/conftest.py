"""Fixtures of tiny training runs, with a narrow VGG-19 that has random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from adaattn_core.training.config import TrainConfig
from tests.helpers.tiny_training import tiny_settings, use_small_vgg, write_pictures
from tests.helpers.training_runs import Configure


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
