"""The public names, and the first script of the documentation."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
import torch

import adaattn_core
from adaattn_core import encode_style, load_image, load_model, save_image, save_model, stylize
from tests.helpers.small_models import picture, small_model

PUBLIC_NAMES = {
    "AdaAttNError",
    "CheckpointError",
    "ImageError",
    "ModelConfig",
    "OutputError",
    "StyleTransferModel",
    "convert_published",
    "encode_style",
    "load_image",
    "load_mask",
    "load_model",
    "load_vgg",
    "refine",
    "save_image",
    "save_model",
    "stylize",
}
"""Scripts rely on these. A new name is added here; removing one breaks scripts."""

KEYWORDS = {
    "load_model": {"device", "dtype"},
    "save_model": {"dtype", "metadata"},
    "encode_style": {"mask", "attention", "seed"},
    "refine": {
        "steps",
        "style_weights",
        "strength",
        "content_weight",
        "temperature",
        "content_mask",
        "style_masks",
        "keep_color",
        "vgg",
        "dtype",
        "progress",
        "preview",
    },
    "stylize": {
        "style_weights",
        "strength",
        "temperature",
        "content_mask",
        "style_masks",
        "keep_color",
        "attention",
        "seed",
        "max_memory_gb",
        "refine_steps",
        "stroke_size",
    },
}
"""Keyword-only arguments that scripts rely on."""


def test_all_holds_the_public_names_sorted() -> None:
    assert set(adaattn_core.__all__) == PUBLIC_NAMES
    assert sorted(adaattn_core.__all__) == adaattn_core.__all__


def test_every_public_name_is_documented() -> None:
    for name in adaattn_core.__all__:
        assert (getattr(adaattn_core, name).__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("function", KEYWORDS)
def test_keyword_arguments_exist_and_are_optional(function: str) -> None:
    parameters = inspect.signature(getattr(adaattn_core, function)).parameters.values()
    keywords = {item.name for item in parameters if item.kind is item.KEYWORD_ONLY and item.default is not item.empty}
    assert keywords >= KEYWORDS[function]


def test_version_is_that_of_the_distribution() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert match and match[1] == adaattn_core.__version__


def test_the_first_script_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model in place of the built-in one."""
    monkeypatch.setattr(sys.modules["adaattn_core.checkpoints.model_file"], "WEIGHTS_FOLDER", tmp_path)
    save_model(small_model(), tmp_path / "compact.safetensors")
    save_image(picture(40, 32, seed=1), tmp_path / "photo.png")
    save_image(picture(33, 50, seed=2), tmp_path / "painting.png")

    model = load_model("compact")
    content, style = load_image(tmp_path / "photo.png"), load_image(tmp_path / "painting.png")
    result = stylize(model, content, style)
    save_image(result, tmp_path / "out.png")

    assert result.shape == content.shape and result.dtype == torch.float32
    assert torch.equal(stylize(model, content, encode_style(model, style)), result)
    # 8 bits, rounded.
    torch.testing.assert_close(load_image(tmp_path / "out.png"), result, rtol=0, atol=0.51 / 255)


def test_loading_and_stylizing_leave_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    save_model(small_model(), tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    stylize(model, picture(32, 32), picture(32, 32, seed=1), attention="sampled")
    assert torch.equal(torch.random.get_rng_state(), before)
