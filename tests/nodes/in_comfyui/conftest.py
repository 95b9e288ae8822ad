"""The nodes inside a real ComfyUI, in this process and without a server.

These tests run where COMFYUI_PATH names a ComfyUI checkout and its requirements are installed:
    COMFYUI_PATH=~/ComfyUI pytest tests/nodes/in_comfyui
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.comfy_pack import load_pack, pack_module

COMFYUI = os.environ.get("COMFYUI_PATH")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI on the CPU, with the pack in it: nodes by id, and ComfyUI's modules."""
    if not COMFYUI:
        pytest.skip("set COMFYUI_PATH to a ComfyUI checkout to run the nodes in it")
    sys.path.insert(0, COMFYUI)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ComfyUI's and its requirements' own
        import comfy.options  # noqa: F401 (before all of comfy)
        from comfy.cli_args import args

        args.cpu = True
        import comfy.model_management
        import comfy.utils
        import folder_paths

        models = tmp_path_factory.mktemp("models")
        folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
        extension = asyncio.run(load_pack().comfy_entrypoint())
        listed = asyncio.run(extension.get_node_list())
        folder_paths.add_model_folder_path("adaattn", str(models), is_default=True)
        nodes = {node.GET_SCHEMA().node_id: node for node in listed}
    return SimpleNamespace(nodes=nodes, mm=comfy.model_management, utils=comfy.utils, models=models)


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes() -> Iterator[None]:
    """Without gradients: the tests of this folder run in inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture
def run(host: SimpleNamespace) -> Callable[..., Any]:
    """`run("Stylize", ...)` is that node's outputs, or its only one."""

    def call(node: str, **inputs: Any) -> Any:
        values = host.nodes[f"AdaAttN_{node}"].execute(**inputs).args
        return values[0] if len(values) == 1 else values

    return call


@pytest.fixture
def parts(run: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """Encoder, attention and decoder of the built-in model."""
    encoder, attention, decoder = run("LoadModel", model_name="built-in")
    return encoder, attention, decoder


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the library encodes, attends and decodes."""
    done = Counter[str]()
    for module, owner, name in (
        ("models.encoder", "VGGEncoder", "encode"),
        ("models.attention", "AdaAttention", "statistics"),
        ("models.decoder", "Decoder", "in_tiles"),
    ):
        kind = getattr(pack_module(f"adaattn_core.{module}"), owner)
        original = getattr(kind, name)

        def counted(*args: Any, original: Callable[..., Any] = original, name: str = name, **options: Any) -> Any:
            done[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(kind, name, counted)
    return done
