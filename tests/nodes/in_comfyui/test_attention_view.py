"""The data that AdaAttN Attention Map gives its viewer: the library's, computed once, and again where it was lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load

from adaattn_core import load_model
from adaattn_core.inference.stages import extract_features
from adaattn_core.viewer.view_data import MAX_BYTES, view_data
from tests.helpers.comfy_pack import pack_module
from tests.helpers.node_images import CONTENT, STYLE, image

Look = Callable[..., Path]


@pytest.fixture
def look(host: SimpleNamespace, run: Callable[..., Any], parts: tuple[Any, Any, Any]) -> Look:
    """`look(x=..., temperature=...)` runs the node on the same features each time -> the file that it names."""
    import folder_paths

    encoder, attention, _ = parts
    features = [run("ExtractFeatures", encoder=encoder, image=image(one)) for one in (CONTENT, STYLE)]

    def call(x: float = 0.5, temperature: float = 1.0) -> Path:
        output = host.nodes["AdaAttN_AttentionMap"].execute(
            attention, *features, x=x, y=0.5, level="relu4_1", opacity=0.7, temperature=temperature
        )
        (entry,) = output.ui["adaattn_attention"]
        assert entry["type"] == "temp"
        return Path(folder_paths.get_temp_directory(), entry["subfolder"], entry["name"])

    return call


def test_the_file_is_the_librarys(look: Look) -> None:
    model = load_model("compact-0.1")
    content, style = (extract_features(model.encoder, one) for one in (CONTENT, STYLE))
    wanted = load(view_data(model.fusion, content, style, model.config.encoder_convs))
    data = look().read_bytes()
    assert len(data) <= MAX_BYTES
    written = load(data)
    assert set(written) == set(wanted)
    for name, tensor in wanted.items():
        assert (written[name].float() - tensor.float()).abs().max() <= (1 if name.startswith("weights") else 1e-5), name


def test_another_point_computes_nothing_anew_and_another_temperature_does(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pack_module("nodes.attention_view").view_data
    computed: list[float] = []
    original = module.view_data

    def counted(*arguments: Any, temperature: float, **options: Any) -> bytes:
        computed.append(temperature)
        made: bytes = original(*arguments, temperature=temperature, **options)
        return made

    monkeypatch.setattr(module, "view_data", counted)
    first = look(x=0.1)
    assert look(x=0.9) == first
    other = look(temperature=2.0)
    assert look() == first != other
    assert computed == [1.0, 2.0]


def test_a_file_that_is_gone_makes_the_node_run_again(host: SimpleNamespace, look: Look) -> None:
    """The host compares what `fingerprint_inputs` gives with the last time; once it was written, it stays the same."""
    fingerprint = host.nodes["AdaAttN_AttentionMap"].fingerprint_inputs
    path = look()
    data, before = path.read_bytes(), fingerprint(x=0.5)
    assert fingerprint(x=0.5) == before
    path.unlink()
    after = fingerprint(x=0.5)
    assert after != before
    assert look() == path and path.read_bytes() == data
    assert fingerprint(x=0.5) == after
