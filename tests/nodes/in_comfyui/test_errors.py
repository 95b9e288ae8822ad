"""Errors of the nodes in ComfyUI: one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaattn_core import save_model
from tests.helpers.node_images import CONTENT, OTHER, STYLE, image
from tests.helpers.small_models import picture, small_model


def features_of_another_encoder(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    save_model(small_model(), host.models / "other.safetensors")
    encoder = run("LoadEncoder", encoder_name="other.safetensors")
    content = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    run("Apply", attention=parts[1], content=content, style=content, strength=1.0)


def decoder_of_another_model(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    save_model(small_model(), host.models / "other.safetensors")
    features = run("ExtractFeatures", encoder=parts[0], image=image(CONTENT))
    fused, _ = run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
    run("Decode", decoder=run("LoadModel", model_name="other.safetensors")[2], fused=fused)


def decoded_over_too_many(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    features = run("ExtractFeatures", encoder=parts[0], image=image(picture(48, 72, batch=2)))
    fused, _ = run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
    run("Decode", decoder=parts[2], fused=fused, content=image(picture(48, 72, batch=3)))


def mixed_contents(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    fused = []
    for one in (CONTENT, 1 - CONTENT):
        features = run("ExtractFeatures", encoder=parts[0], image=image(one))
        fused.append(run("Apply", attention=parts[1], content=features, style=features, strength=1.0)[0])
    run("MixStyles", fused_1=fused[0], fused_2=fused[1])


def corrupt_file(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    (host.models / "broken.safetensors").write_bytes(b"not weights")
    run("LoadModel", model_name="broken.safetensors")


def simple(**options: Any) -> Callable[..., None]:
    def call(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
        inputs = {"model_name": "built-in", "content": image(CONTENT), "style": image(STYLE), "strength": 1.0}
        run("Stylize", **{**inputs, **options})

    return call


def refined_over_another_size(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    run("Refine", image=image(CONTENT), content=image(OTHER), style=image(STYLE))


def refined_with_too_many_styles(run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace) -> None:
    batch = picture(48, 72, batch=2)
    run("Refine", image=image(batch), content=image(CONTENT), style=image(picture(32, 32, batch=3)))


ERRORS: dict[str, tuple[Callable[..., None], str]] = {
    "encoder": (
        features_of_another_encoder,
        r"the content features come from the encoder other\.safetensors \([0-9a-f]{12}\), and the attention of "
        r"built-in reads only those of its own encoder, built-in \([0-9a-f]{12}\)\. Extract them with the encoder "
        r"that was loaded with the attention\.",
    ),
    "decoder": (
        decoder_of_another_model,
        r"this was painted by the attention built-in \([0-9a-f]{12}\), and the decoder is that of other\.safetensors "
        r"\([0-9a-f]{12}\)\. Use the decoder that was loaded with the attention\.",
    ),
    "content image": (
        decoded_over_too_many,
        r"the content image is 3 pictures of 72x48 pixels; the painting is 2 pictures of 72x48 pixels\. Give the .*",
    ),
    "contents": (
        mixed_contents,
        r"painting 2 has another content than painting 1; .* Use the same content features .*",
    ),
    "refined content": (
        refined_over_another_size,
        r"the image to refine is 1 picture of 72x48 pixels, the content 1 picture of 48x32 pixels; "
        r"give a result of that content",
    ),
    "refined styles": (
        refined_with_too_many_styles,
        r"3 styles came for 2 contents; give 1 style, or 2",
    ),
    "corrupt": (corrupt_file, r".*broken\.safetensors is truncated or no safetensors file\. Get it again\."),
    "missing": (
        simple(model_name="gone.safetensors"),
        r"gone\.safetensors is not in models/adaattn any more\. Press R and choose another, or put it back\.",
    ),
    "empty style mask": (
        simple(style_mask=torch.zeros(45, 34)),
        r"the style mask is empty: no part of the style is left to look at\. Paint some of it white\.",
    ),
    "style batch": (
        simple(content=image(picture(48, 72, batch=3)), style=image(picture(45, 34, batch=2))),
        r"the style has 2 pictures and the content 3; give 1 style, or 3, or switch every style on, .*",
    ),
    "channels": (
        simple(style=torch.zeros(1, 45, 34, 2)),
        r"the style image is 1 picture of 34x45 pixels with 2 channels; a batch of pictures with 3 channels is needed",
    ),
    "size": (
        simple(content=torch.zeros(1, 9, 12, 3)),
        r"the content is 12x9 pixels; at least 16x16 are needed\. Resize the picture first\.",
    ),
    "nan": (
        simple(content=image(CONTENT) * float("nan")),
        r"the content holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "weights": (
        simple(style_weight=0.0),
        r"style weights are \[0\.0\]; they must not be negative, and one must be above 0",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(
    name: str, run: Callable[..., Any], parts: tuple[Any, Any, Any], host: SimpleNamespace
) -> None:
    call, text = ERRORS[name]
    try:
        with pytest.raises((ValueError, RuntimeError)) as caught:
            call(run, parts, host)
    finally:
        for path in host.models.iterdir():
            path.unlink()
    assert re.fullmatch(text, str(caught.value)), str(caught.value)


def test_an_encoder_of_the_same_weights_is_the_same_encoder(
    run: Callable[..., Any], parts: tuple[Any, Any, Any]
) -> None:
    encoder = run("LoadEncoder", encoder_name="built-in")
    features = run("ExtractFeatures", encoder=encoder, image=image(CONTENT))
    run("Apply", attention=parts[1], content=features, style=features, strength=1.0)
