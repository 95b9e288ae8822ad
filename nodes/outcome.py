"""What every node tells ComfyUI besides its results: notices, and errors of a kind that the page can name.

ComfyUI shows the full name of an exception's class, which for a class of this pack begins with the path of its folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from comfy_api.latest import io

from .core import errors, remarks

logger = logging.getLogger(__name__)

NOTICES = "adaattn_notices"
"""Key of the notices among what a node sends to the page; web/notices.js shows them."""


def told(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """A node's `execute` whose errors are exceptions of Python, and whose remarks are notices on the page.

    Raises:
        ValueError, RuntimeError: in place of an AdaAttNError, with the same text.
    """

    @wraps(execute)
    def run(*args: Any, **inputs: Any) -> io.NodeOutput:  # noqa: ANN401 (the inputs of any node)
        with remarks.collected_remarks() as notes:
            try:
                output = execute(*args, **inputs)
            except errors.AdaAttNError as error:
                plain = ValueError if isinstance(error, ValueError) else RuntimeError
                raise plain(str(error)) from error
            finally:
                lines = list(dict.fromkeys(f"{note.name}: {note.text}" if note.name else note.text for note in notes))
                for line in lines:
                    logger.warning("%s", line)
        return _with_notices(output, lines) if lines else output

    return run


def _with_notices(output: io.NodeOutput, lines: list[str]) -> io.NodeOutput:
    shown = output.ui if isinstance(output.ui, dict) or output.ui is None else output.ui.as_dict()
    return io.NodeOutput(*output.args, ui={**(shown or {}), NOTICES: lines})
