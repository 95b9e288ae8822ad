"""A few of the kills of `python -m tests.faults`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')
pytest.importorskip("jinja2", reason='needs jinja2: pip install "adaattn[eval]"')
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="it forks processes")
def test_killed_runs_lose_nothing_and_leave_nothing() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults", "--kills", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
