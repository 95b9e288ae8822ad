"""What these tests need of the machine. A test file asks at its top; where it is not there, the file is skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def require_checkout() -> Path:
    """The ComfyUI to test in."""
    checkout = os.environ.get("COMFYUI_PATH")
    if not checkout:
        pytest.skip(
            "set COMFYUI_PATH to a ComfyUI checkout, or let tests/comfyui/run.sh set up all that is needed",
            allow_module_level=True,
        )
    return Path(checkout)


def require_browser() -> str:
    """The Chromium to look at the page with."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright: pip install playwright", allow_module_level=True)
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs a browser: install chromium, or set CHROMIUM to one", allow_module_level=True)
    return browser
