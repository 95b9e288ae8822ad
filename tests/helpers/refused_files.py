"""The check that a weights file is refused with an error of one line."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from adaattn_core import CheckpointError


def refused(call: Callable[[], object], text: str) -> None:
    """The call ends in a CheckpointError of one line that matches `text` from end to end."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert re.fullmatch(text, message), message
