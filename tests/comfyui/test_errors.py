"""What a wrong input says, in the host's own check or in the node's red box: what came, what is needed, what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.comfyui.conditions import require_checkout
from tests.comfyui.graphs import changed, parts_graph, stylize_graph, with_mask
from tests.comfyui.host import Host, Picture, Prompt, RefusedError, link, with_defaults

require_checkout()

CHECKS_CHOICES = (0, 8)
"""Version of ComfyUI from which on it looks whether a choice of our kind of node exists; 0.3.64 does not."""

# ---------------------------------------------------------------- refused before anything runs

RANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "strength above 1": ("stylize", {"strength": 1.5}, "strength"),
    "strength below 0": ("stylize", {"strength": -0.1}, "strength"),
    "temperature 0": ("stylize", {"temperature": 0.0}, "temperature"),
    "feather without end": ("stylize", {"mask_feather": 100_000}, "mask_feather"),
    "a negative style size": ("stylize", {"style_size": -16}, "style_size"),
    "a word for a number": ("stylize", {"strength": "much"}, "strength"),
    "an empty socket": ("stylize", {"style": None}, "style"),
}


@pytest.mark.parametrize("case", RANGES)
def test_out_of_range_is_refused_by_the_host(host: Host, info: dict[str, Any], case: str) -> None:
    node, inputs, name = RANGES[case]
    graph = changed(stylize_graph(info), node, **inputs)
    graph[node]["inputs"] = {key: value for key, value in graph[node]["inputs"].items() if value is not None}
    with pytest.raises(RefusedError) as refusal:
        host.queue(graph)
    assert refusal.value.status == 400
    assert name in refusal.value.errors_of(node)


CHOICES: dict[str, tuple[str, str]] = {
    "an unknown attention": ("attention_mode", "best"),
    "a model that is not there": ("model_name", "gone.safetensors"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_an_unknown_choice_is_refused_by_name(host: Host, info: dict[str, Any], case: str) -> None:
    name, value = CHOICES[case]
    assert value in refusal(host, changed(stylize_graph(info), "stylize", **{name: value}), "stylize")


def refusal(host: Host, graph: Prompt, node: str) -> str:
    """What is said of a choice that does not exist: by the host, or by the node where the host is too old to look."""
    if host.version < CHECKS_CHOICES:
        return red_box(host, graph, node)
    with pytest.raises(RefusedError) as refused:
        host.queue(graph)
    assert refused.value.status == 400
    return refused.value.errors_of(node)


WRONG_SOCKETS = {
    "a picture for features": ("apply", {"content": link("content")}),
    "features for a picture": ("content_features", {"image": link("content_features")}),
    "a decoder for an attention": ("apply", {"attention": link("model", 2)}),
    "features for a painting": ("decode", {"fused": link("style_features")}),
    "an encoder for a decoder": ("decode", {"decoder": link("model", 0)}),
}


@pytest.mark.parametrize("case", WRONG_SOCKETS)
def test_a_wrong_link_is_refused_by_the_host(host: Host, info: dict[str, Any], case: str) -> None:
    node, inputs = WRONG_SOCKETS[case]
    with pytest.raises(RefusedError) as refusal:
        host.queue(changed(parts_graph(info), node, **inputs))
    assert refusal.value.status == 400


# ---------------------------------------------------------------- in the red box


def red_box(host: Host, prompt: Prompt, node: str) -> str:
    run = host.run(prompt)
    assert not run.succeeded
    assert run.failed_node == node, run.error
    lines = [line for line in run.error.splitlines() if line.strip()]
    assert len(lines) == 1, f"more than one line: {run.error}"
    return lines[0]


def test_an_empty_content_mask_is_no_error_and_the_page_is_told(host: Host, info: dict[str, Any]) -> None:
    run = host.paint(with_mask(info, stylize_graph(info), "stylize", "content_mask", 0.0))
    (line,) = run.outputs["stylize"]["adaattn_notices"]
    assert "content mask is empty" in line


def test_an_empty_style_mask(host: Host, info: dict[str, Any]) -> None:
    graph = with_mask(info, parts_graph(info), "apply", "style_mask", 0.0)
    assert "style mask is empty" in red_box(host, graph, "apply")


def test_a_style_batch_that_matches_nothing(host: Host, info: dict[str, Any]) -> None:
    graph = parts_graph(info, content={"batch": 3}, style={"batch": 2, "seed": 1})
    text = red_box(host, graph, "apply")
    assert "2" in text and "3" in text and "style" in text
    whole = changed(stylize_graph(info, content={"batch": 3}), "style", batch=2)
    assert red_box(host, whole, "stylize") == text


def test_a_picture_too_small_to_see(host: Host, info: dict[str, Any]) -> None:
    text = red_box(host, stylize_graph(info, content={"width": 12, "height": 9}), "stylize")
    assert "12x9" in text and "16x16" in text


def test_features_of_another_encoder(host: Host, info: dict[str, Any], small_model_file: Path) -> None:
    other = with_defaults(info, {"other": ("AdaAttN_LoadModel", {"model_name": small_model_file.name})})
    graph = {**changed(parts_graph(info), "style_features", encoder=link("other")), **other}
    text = red_box(host, graph, "apply")
    assert "style" in text and small_model_file.name in text and "base (built in)" in text


def test_a_decoder_of_another_model(host: Host, info: dict[str, Any], small_model_file: Path) -> None:
    other = with_defaults(info, {"other": ("AdaAttN_LoadModel", {"model_name": small_model_file.name})})
    graph = {**changed(parts_graph(info), "decode", decoder=link("other", 2)), **other}
    assert "decoder" in red_box(host, graph, "decode")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "no weights at all": lambda data: b"<html>not found</html>",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_corrupt_model_file(host: Host, info: dict[str, Any], small_model_file: Path, damage: str) -> None:
    broken = small_model_file.with_name("broken.safetensors")
    broken.write_bytes(DAMAGE[damage](small_model_file.read_bytes()))
    try:
        for graph, node in (
            (stylize_graph(info, model_name=broken.name), "stylize"),
            (changed(parts_graph(info), "model", model_name=broken.name), "model"),
        ):
            assert broken.name in red_box(host, graph, node)
    finally:
        broken.unlink()


def test_a_model_file_that_was_deleted_is_refused_by_name(
    host: Host, info: dict[str, Any], small_model_file: Path
) -> None:
    gone = small_model_file.with_name("gone.safetensors")
    gone.write_bytes(small_model_file.read_bytes())
    graph = stylize_graph(info, model_name=gone.name)
    host.paint(graph)
    gone.unlink()
    assert gone.name in refusal(host, graph, "stylize")


def test_a_new_model_file_is_listed_without_a_restart(host: Host, small_model_file: Path) -> None:
    """What R does in the page."""
    new = small_model_file.with_name("new.safetensors")
    new.write_bytes(small_model_file.read_bytes())
    try:
        assert new.name in str(host.get("/object_info/AdaAttN_LoadModel"))
    finally:
        new.unlink()
    assert new.name not in str(host.get("/object_info/AdaAttN_LoadModel"))


# ---------------------------------------------------------------- unusual input that is fine


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read(host: Host, info: dict[str, Any], dtype: str) -> None:
    plain = host.picture(host.paint(stylize_graph(info)), "save").astype(int)
    other = host.picture(host.paint(stylize_graph(info, content={"dtype": dtype})), "save").astype(int)
    assert np.abs(plain - other).mean() < 2


def test_the_fourth_channel_of_a_content_is_its_opacity_and_stays(host: Host, info: dict[str, Any]) -> None:
    graph = stylize_graph(info, content={"channels": 4})
    unpainted = {"images": link("content"), "filename_prefix": "unpainted"}
    run = host.paint({**graph, **with_defaults(info, {"unpainted": ("SaveImage", unpainted)})})
    painted, content = host.picture(run, "save"), host.picture(run, "unpainted")
    assert content.shape[-1] == 4
    assert np.array_equal(painted[..., 3], content[..., 3])
    assert np.abs(painted[..., :3].astype(int) - content[..., :3]).mean() > 2, "nothing was painted"


def test_a_grey_picture_is_read(host: Host, info: dict[str, Any]) -> None:
    assert host.paint(stylize_graph(info, content={"channels": 1})).succeeded


def test_the_empty_mask_of_load_image_counts_as_none(host: Host, info: dict[str, Any]) -> None:
    Image.new("RGB", (64, 48), "red").save(host.base / "input" / "opaque.png")
    plain = stylize_graph(info)
    loader = {"load": {"class_type": "LoadImage", "inputs": {"image": "opaque.png"}}}
    masked = {**changed(plain, "stylize", content_mask=link("load", 1)), **loader}
    one, other = (host.picture(host.paint(graph), "save") for graph in (plain, masked))
    assert np.array_equal(one, other)


def test_what_is_painted_in_the_mask_editor_is_the_region(host: Host, info: dict[str, Any]) -> None:
    """The editor saves the picture clear where it was painted, and the mask of Load Image is connected as it is."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    picture[..., 3] = 255
    picture[:, :40, 3] = 0
    Image.fromarray(picture).save(host.base / "input" / "painted-mask.png")
    graph = stylize_graph(info, style_weight=0.0, regions=link("region"))
    region = {"style": link("style"), "mask": link("load", 1)}
    graph = {
        **changed(graph, "stylize", content=link("load")),
        **with_defaults(info, {"region": ("AdaAttN_StyleRegion", region)}),
        "load": {"class_type": "LoadImage", "inputs": {"image": "painted-mask.png"}},
    }
    result = host.picture(host.paint(graph), "save")
    assert np.array_equal(result[:, 40:], picture[:, 40:, :3])
    assert np.abs(result[:, :40].astype(int) - picture[:, :40, :3]).mean() > 2


def test_one_style_serves_a_batch(host: Host, info: dict[str, Any]) -> None:
    pictures = host.pictures(host.paint(stylize_graph(info, content={"batch": 3})), "save")
    assert len(pictures) == 3
    single = host.picture(host.paint(changed(stylize_graph(info), "content", batch=1)), "save")
    assert single.shape == pictures[0].shape


def test_what_nodes_give_does_not_change_their_input(host: Host, info: dict[str, Any]) -> None:
    """Outputs are cached as they are and shared by all who read them."""
    graph = stylize_graph(info, strength=0.97)

    def content(name: str) -> Picture:
        shown = with_defaults(info, {name: ("SaveImage", {"images": link("content"), "filename_prefix": name})})
        return host.picture(host.paint({"content": graph["content"], **shown}), name)

    before = content("before")
    assert "content" not in host.paint(graph).executed
    assert np.array_equal(content("after"), before)
