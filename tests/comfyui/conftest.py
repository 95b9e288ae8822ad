"""One ComfyUI server for all tests of this folder, and what they need around it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaattn_core import save_model
from tests.comfyui.conditions import require_checkout
from tests.comfyui.host import Host
from tests.helpers.small_models import small_model

collect_ignore = ["probe", "browser.py", "viewer.py"]
"""Not for doctests: they import what only the host's environment has."""


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running ComfyUI with the pack as the registry would ship it, and nothing else.

    COMFYUI_PATH is the checkout, PYTHON its interpreter (this one, unless set), COMFYUI_ARGS further arguments of its
    main.py in place of --cpu.
    """
    checkout = require_checkout()
    arguments = os.environ.get("COMFYUI_ARGS", "--cpu").split()
    base = tmp_path_factory.mktemp("comfyui")
    with Host(checkout, base, os.environ.get("PYTHON") or sys.executable, arguments) as running:
        yield running


@pytest.fixture
def small_model_file(host: Host) -> Iterator[Path]:
    """A model of a user's, in the host's models/adaattn: narrow, with random weights."""
    path = host.base / "models" / "adaattn" / "small.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_model(small_model(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def info(host: Host) -> dict[str, Any]:
    """Every node's inputs and outputs, as the host tells its page."""
    schemas: dict[str, Any] = host.get("/object_info")
    return schemas
