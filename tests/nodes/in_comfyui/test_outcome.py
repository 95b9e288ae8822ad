"""What the nodes tell ComfyUI besides their results: notices, and errors of Python's own classes."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.comfy_pack import pack_module
from tests.helpers.node_images import CONTENT, STYLE, image, pixels
from tests.helpers.small_models import picture

Run = Callable[..., Any]
BLACK = torch.zeros(48, 72)


def notices(output: Any) -> list[str]:
    found: list[str] = (output.ui or {}).get(pack_module("nodes.outcome").NOTICES, [])
    return found


def stylized(host: SimpleNamespace, **options: Any) -> Any:
    inputs = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 1.0, **options}
    return host.nodes["AdaAttN_Stylize"].execute(**inputs)


# ---------------------------------------------------------------- notices


@pytest.mark.parametrize(
    "options",
    [
        {"content_mask": BLACK},
        {"content_mask": 1 - BLACK, "mask_invert": True},
        {"content_mask": BLACK + 0.3, "mask_threshold": 0.5},
        {"content_mask": BLACK, "refine_steps": 1, "keep_color": True},
    ],
)
def test_an_empty_mask_gives_the_content_and_a_notice(
    host: SimpleNamespace, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    with caplog.at_level(logging.WARNING):
        output = stylized(host, **options)
    assert torch.equal(pixels(output.args[0]), CONTENT)
    (line,) = notices(output)
    assert line == (
        "the content mask is empty: nothing is painted there. Paint some of it white, change invert or threshold, or "
        "disconnect it."
    )
    assert [record.getMessage() for record in caplog.records].count(line) == 1


def test_an_empty_mask_in_the_separate_nodes(host: SimpleNamespace, run: Run, parts: tuple[Any, Any, Any]) -> None:
    features = run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
    inputs = {"attention": parts[1], "content": features, "style": features, "strength": 1.0}
    applied = host.nodes["AdaAttN_Apply"].execute(**inputs, content_mask=BLACK)
    assert notices(applied)[0].startswith("the content mask is empty")
    assert not applied.args[1].any()
    assert torch.equal(pixels(run("Decode", decoder=parts[2], fused=applied.args[0])), CONTENT)
    mixed = host.nodes["AdaAttN_MixStyles"].execute(fused_1=run("Apply", **inputs)[0], mask_1=BLACK)
    assert notices(mixed)[0].startswith("the mask 1 is empty")
    assert torch.equal(pixels(run("Decode", decoder=parts[2], fused=mixed.args[0])), CONTENT)


def test_an_empty_mask_of_refine(host: SimpleNamespace) -> None:
    inputs = {"image": image(STYLE[..., :32, :32]), "content": image(CONTENT[..., :32, :32]), "style": image(STYLE)}
    output = host.nodes["AdaAttN_Refine"].execute(**inputs, steps=1, mask=BLACK)
    assert notices(output)[0].startswith("the mask is empty")
    assert torch.equal(pixels(output.args[0]), CONTENT[..., :32, :32])


def test_a_style_size_that_is_too_small_is_named(host: SimpleNamespace) -> None:
    """It counted as 16 before, without a word; saved workflows keep their picture."""
    big = image(picture(64, 80, seed=4))
    small = stylized(host, style=big, style_size=7)
    assert notices(small) == ["style size 7 is too small and counts as 16; 0 keeps the size of the styles"]
    least = stylized(host, style=big, style_size=16)
    assert notices(least) == [] and torch.equal(small.args[0], least.args[0])


def test_a_notice_leaves_the_other_things_that_a_node_shows(host: SimpleNamespace) -> None:
    outcome, remarks = pack_module("nodes.outcome"), pack_module("adaattn_core.runtime.remarks")
    shown = host.nodes["AdaAttN_ExamplePicture"].execute(picture="coffee", frames=1)

    @outcome.told  # type: ignore[untyped-decorator]
    def node() -> Any:
        remarks.remark("", "something")
        return shown

    output = node()
    assert output.ui == {**shown.ui.as_dict(), outcome.NOTICES: ["something"]}
    assert output.args == shown.args


# ---------------------------------------------------------------- errors


def test_errors_are_of_pythons_own_classes(host: SimpleNamespace, run: Run) -> None:
    """ComfyUI prints the full name of a class; that of one of ours begins with the path of the pack's folder."""
    (host.models / "broken.safetensors").write_bytes(b"not weights")
    try:
        with pytest.raises(RuntimeError, match=r"broken\.safetensors") as caught:
            run("LoadModel", model_name="broken.safetensors")
    finally:
        (host.models / "broken.safetensors").unlink()
    assert type(caught.value).__module__ == builtins.__name__


def test_every_node_tells_its_outcome_so(host: SimpleNamespace) -> None:
    for name, node in host.nodes.items():
        assert hasattr(node.execute, "__wrapped__"), name
