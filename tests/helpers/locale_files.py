"""The texts in locales/<language>, as the tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read_locale(language: str, name: str) -> dict[str, Any]:
    """A file of a language as it is."""
    loaded: dict[str, Any] = json.loads((ROOT / "locales" / language / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def node_words(language: str) -> dict[str, Any]:
    """nodeDefs.json without the tooltips that are there a second time, under the label of their input."""
    nodes = read_locale(language, "nodeDefs")
    for entry in nodes.values():
        entry["inputs"] = {key: value for key, value in entry["inputs"].items() if "name" in value}
    return nodes


def tooltips_by_label(language: str) -> dict[str, dict[str, str]]:
    """Node -> label of an input -> tooltip: what `node_words` leaves out."""
    return {
        node: {key: value["tooltip"] for key, value in entry["inputs"].items() if "name" not in value}
        for node, entry in read_locale(language, "nodeDefs").items()
    }
