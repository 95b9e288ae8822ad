"""What the nodes' schemas say, read without ComfyUI: a stand-in for its API keeps what it is told.

Good for words and ranges. Whether a real host accepts the schemas is for the tests in tests/comfyui.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

ROOT = Path(__file__).parents[2]
PACK = "pack_for_schemas"
HOST = (
    "comfy", "comfy.model_management", "comfy.model_patcher", "comfy.patcher_extension", "comfy.utils", "folder_paths",
)  # fmt: skip
"""ComfyUI modules that the nodes import and no schema needs."""


WIDGETS = {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"}
"""Types of inputs that the page shows with a widget."""


@dataclass(frozen=True)
class Socket:
    """An input or an output of a node."""

    type: str
    id: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.options.get("display_name") or self.id)

    @property
    def tooltip(self) -> str:
        return str(self.options.get("tooltip", ""))

    @property
    def has_widget(self) -> bool:
        return self.type in WIDGETS


class SocketType:
    """Stands in for io.Image, io.Float, io.Custom("...") and the like."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _socket(self, id: str, **options: Any) -> Socket:
        return Socket(self.name, id, options)

    Input = Output = _socket


@dataclass(frozen=True, init=False)
class Schema:
    """Stands in for io.Schema: what of it is words. It knows `search_aliases`, as newer versions of ComfyUI do."""

    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list[Socket]
    outputs: list[Socket]
    search_aliases: list[str]

    def __init__(self, *, search_aliases: list[str], **options: Any) -> None:
        for name, value in {**options, "search_aliases": search_aliases}.items():
            if name in {field.name for field in fields(self)}:
                object.__setattr__(self, name, value)


class Api(ModuleType):
    """Stands in for comfy_api.latest.io: any name it does not know is a socket type."""

    Schema = Schema
    Custom = SocketType
    NumberDisplay = MagicMock()
    ComfyNode = type("ComfyNode", (), {})

    def __getattr__(self, name: str) -> SocketType:
        if name.startswith("_"):
            raise AttributeError(name)
        return SocketType(name.upper())


@cache
def node_schemas() -> dict[str, Schema]:
    """Node id -> its schema, in the order in which the pack lists its nodes."""
    latest = ModuleType("comfy_api.latest")
    vars(latest).update(
        io=Api("io"),
        ui=MagicMock(),
        InputImpl=MagicMock(),
        Types=MagicMock(),
        ComfyExtension=type("ComfyExtension", (), {}),
    )
    stand_ins = {name: MagicMock() for name in HOST}
    stand_ins["folder_paths"].get_filename_list.return_value = []
    with patch.dict(sys.modules, {**stand_ins, "comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest}):
        extension = asyncio.run(_pack().comfy_entrypoint())
        schemas = [node.define_schema() for node in asyncio.run(extension.get_node_list())]
    return {schema.node_id: schema for schema in schemas}


def _pack() -> ModuleType:
    """The root folder as a package of this name, so that no other test meets a pack with stand-ins in it."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
