"""The node pack, imported the way ComfyUI does it: the root folder as a package under a name of the host's choice."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
NAME = "adaattn_pack_under_test"


def load_pack() -> ModuleType:
    """The root package; importing it does nothing."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def pack_module(name: str) -> ModuleType:
    """A module of the pack, such as `nodes.files`; only those that need no ComfyUI can be had without one."""
    load_pack()
    return importlib.import_module(f"{NAME}.{name}")
