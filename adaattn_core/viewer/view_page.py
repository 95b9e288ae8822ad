"""The attention viewer as a page: one file that any browser shows, without other files and without a connection."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent
SCRIPTS = ("attention_data", "attention_pane", "attention_style", "attention_words", "attention_viewer")
"""Modules of the viewer, each after those that it imports."""

IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)


def view_page(data: bytes, title: str) -> str:
    """HTML of the page.

    Args:
        data: result of `view_data`.
        title: heading and name of the page.
    """
    template = Template((FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), data=base64.b64encode(data).decode("ascii"), script=script())


def script() -> str:
    """The modules as one, since a browser imports none from a file on disk."""
    sources = [(FOLDER / f"{name}.mjs").read_text(encoding="utf-8") for name in SCRIPTS]
    return "\n".join(EXPORT.sub("", IMPORT.sub("", source)) for source in sources)
