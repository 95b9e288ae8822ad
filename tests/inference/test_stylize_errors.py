"""Arguments that `stylize` and `encode_style` refuse: each error says what came and what is needed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, encode_style, refine, stylize
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model
from tests.helpers.stylize_pictures import CONTENT, OTHER, STYLE

NARROW = replace(SMALL, projection_channels=(4, 4, 4))


def nan_picture() -> Tensor:
    content = picture(16, 16)
    content[0, 0, 0, 0] = math.nan
    return content


ERRORS: dict[str, tuple[Callable[[StyleTransferModel], object], str]] = {
    "content shape": (
        lambda m: stylize(m, torch.zeros(3, 16, 16), STYLE),
        "the content is 1 picture of 16x16 pixels with 3 channels and no batch; a batch of pictures with 3 channels is "
        r"needed. Add the batch: content\[None\].",
    ),
    "content in an array": (
        lambda m: stylize(m, CONTENT.numpy(), STYLE),  # type: ignore[arg-type]
        "the content is of type ndarray; a tensor is needed. load_image reads one from a file.",
    ),
    "content as a path": (
        lambda m: stylize(m, "photo.jpg", STYLE),  # type: ignore[arg-type]
        "the content is of type str; a tensor is needed. load_image reads one from a file.",
    ),
    "model and content in the wrong order": (
        lambda m: stylize(CONTENT, m, STYLE),  # type: ignore[arg-type]
        "the model is of type Tensor; what load_model gives is needed.",
    ),
    "style as a path": (
        lambda m: stylize(m, CONTENT, ["painting.jpg"]),  # type: ignore[list-item]
        "the style is of type str; a tensor is needed. load_image reads one from a file.",
    ),
    "style to encode as a path": (
        lambda m: encode_style(m, "painting.jpg"),  # type: ignore[arg-type]
        "the style is of type str; a tensor is needed. load_image reads one from a file.",
    ),
    "model by name": (
        lambda m: stylize("compact", CONTENT, STYLE),  # type: ignore[arg-type]
        "the model is of type str; what load_model gives is needed.",
    ),
    "model by name for a style": (
        lambda m: encode_style("compact", STYLE),  # type: ignore[arg-type]
        "the model is of type str; what load_model gives is needed.",
    ),
    "style encoded by another model": (
        lambda m: stylize(m, CONTENT, encode_style(small_model(config=NARROW), STYLE)),
        "the style was encoded by another model; this one needs its own. Encode it with encode_style and this model.",
    ),
    "style encoded by a model of other levels": (
        lambda m: stylize(m, CONTENT, [encode_style(small_model(config=SMALL_VIDEO), STYLE)]),
        "the style was encoded by another model; this one needs its own. Encode it with encode_style and this model.",
    ),
    "refinement towards an encoded style": (
        lambda m: refine(CONTENT, CONTENT, encode_style(m, STYLE), steps=1),  # type: ignore[arg-type]
        "the style is already encoded; the picture itself is needed.",
    ),
    "mask in an array": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=CONTENT[:, :1].numpy()),  # type: ignore[arg-type]
        "the content mask is of type ndarray; a tensor is needed. load_mask reads one from a file.",
    ),
    "content size": (
        lambda m: stylize(m, torch.zeros(1, 3, 9, 12), STYLE),
        "the content is 12x9 pixels; at least 16x16 are needed. Resize the picture first.",
    ),
    "content type": (
        lambda m: stylize(m, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), STYLE),
        r"the content has dtype torch.uint8; floating point in \[0, 1\] is needed. Divide by 255 first.",
    ),
    "content values": (
        lambda m: stylize(m, nan_picture(), STYLE),
        r"the content holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "content with its channels last": (
        lambda m: stylize(m, torch.zeros(1, 16, 20, 3), STYLE),
        "the content is 1 picture of 3x20 pixels with 16 channels; a batch of pictures with 3 channels is needed. "
        r"Move its channels forward: content.movedim\(-1, 1\).",
    ),
    "no content": (
        lambda m: stylize(m, torch.zeros(0, 3, 16, 16), STYLE),
        "the content is a batch without pictures; at least 1 picture is needed",
    ),
    "content in bytes": (
        lambda m: stylize(m, 255 * CONTENT, STYLE),
        r"the content holds values from \S+ to 25\d\S*; \[0, 1\] is needed. Scale or clip them.",
    ),
    "content around 0, without any style": (
        lambda m: stylize(m, 2 * CONTENT - 1, STYLE, strength=0),
        r"the content holds values from -\S+ to \S+; \[0, 1\] is needed. Scale or clip them.",
    ),
    "style in bytes": (
        lambda m: encode_style(m, 255 * STYLE),
        r"the style holds values from \S+ to 25\d\S*; \[0, 1\] is needed. Scale or clip them.",
    ),
    "mask in bytes": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.full((37, 50), 255, dtype=torch.uint8)),
        r"the content mask holds values from 255 to 255; \[0, 1\] is needed. Scale or clip them.",
    ),
    "mask without numbers": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.full((37, 50), math.nan)),
        r"the content mask holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "3 masks": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.ones(3, 1, 37, 50)),
        r"3 masks for 1 picture: give 1 \(content mask\)",
    ),
    "style shape": (
        lambda m: stylize(m, CONTENT, torch.zeros(1, 4, 16, 16)),
        "the style is 1 picture of 16x16 pixels with 4 channels; a batch of pictures with 3 channels is needed. "
        r"Take the colours without the opacity: style\[:, :3\].",
    ),
    "style size": (
        lambda m: encode_style(m, torch.zeros(1, 3, 99, 15)),
        "the style is 15x99 pixels; at least 16x16 are needed. Resize the picture first.",
    ),
    "style values": (
        lambda m: encode_style(m, nan_picture()),
        r"the style holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "style batch": (
        lambda m: stylize(m, picture(16, 16, batch=3), picture(16, 16, batch=2)),
        "the style has 2 pictures and the content 3; give 1 style, or 3",
    ),
    "no style": (lambda m: stylize(m, CONTENT, []), "no style came; at least one is needed"),
    "count of weights": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[1]),
        "1 style weight came for 2 styles; give one for each",
    ),
    "negative weight": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[2, -1]),
        r"style weights are \[2.0, -1.0\]; they must not be negative, and one must be above 0",
    ),
    "weights of 0": (
        lambda m: stylize(m, CONTENT, STYLE, style_weights=[0]),
        r"style weights are \[0.0\]; they must not be negative, and one must be above 0",
    ),
    "infinite weight": (
        lambda m: stylize(m, CONTENT, STYLE, style_weights=[math.inf]),
        r"style weights are \[inf\]; they must not be negative, and one must be above 0",
    ),
    "NaN weight": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[1, math.nan]),
        r"style weights are \[1.0, nan\]; they must not be negative, and one must be above 0",
    ),
    "strength above 1": (
        lambda m: stylize(m, CONTENT, STYLE, strength=1.5),
        "strength is 1.5; it must be between 0 and 1",
    ),
    "strength below 0": (
        lambda m: stylize(m, CONTENT, STYLE, strength=-0.1),
        "strength is -0.1; it must be between 0 and 1",
    ),
    "strength NaN": (
        lambda m: stylize(m, CONTENT, STYLE, strength=math.nan),
        "strength is nan; it must be between 0 and 1",
    ),
    "temperature": (
        lambda m: stylize(m, CONTENT, STYLE, temperature=0),
        r"temperature is 0; it must be above 0 \(1 is neutral\)",
    ),
    "memory": (
        lambda m: stylize(m, CONTENT, STYLE, max_memory_gb=0),
        "max_memory_gb is 0; it must be above 0",
    ),
    "attention": (
        lambda m: stylize(m, CONTENT, STYLE, attention="flash"),  # type: ignore[arg-type]
        "attention is 'flash'; known are exact, sampled",
    ),
    "count of style masks": (
        lambda m: stylize(m, CONTENT, STYLE, style_masks=[None, None]),
        r"2 style masks came for 1 style; give one \(or None\) for each",
    ),
    "mask of an encoded style": (
        lambda m: stylize(m, CONTENT, encode_style(m, STYLE), style_masks=[torch.ones(45, 34)]),
        "a style mask came with an already encoded style; give the mask to encode_style instead",
    ),
    "shape of the content mask": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.ones(1, 3, 37, 50)),
        "the content mask is 1 mask of 50x37 pixels with 3 channels; "
        r"a mask has 1 channel, \(batch, 1, height, width\) or fewer",
    ),
    "count of content masks": (
        lambda m: stylize(m, picture(16, 16, batch=3), STYLE, content_mask=torch.ones(2, 1, 16, 16)),
        r"2 masks for 3 pictures: give 1, or 3 \(content mask\)",
    ),
    "aspect of the content mask": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.ones(50, 37)),
        "the content mask is 37x50 pixels, the content 50x37: another aspect ratio. "
        "Crop or draw the mask to fit the content.",
    ),
    "aspect of the style mask": (
        lambda m: encode_style(m, STYLE, mask=torch.ones(37, 50)),
        "the style mask is 50x37 pixels, the style 34x45: another aspect ratio. "
        "Crop or draw the mask to fit the style.",
    ),
    "empty style mask": (
        lambda m: encode_style(m, STYLE, mask=torch.full((45, 34), 0.4)),
        "the style mask is empty: no part of the style is left to look at. Paint some of it white.",
    ),
    "refinement of an encoded style": (
        lambda m: stylize(m, CONTENT, [STYLE, encode_style(m, STYLE)], refine_steps=5),
        "refine_steps needs the style as a picture, and an already encoded style came; give the picture itself instead "
        "of the result of encode_style",
    ),
    "refine steps": (
        lambda m: stylize(m, CONTENT, STYLE, refine_steps=-1),
        "refine steps are -1; a whole number from 0 to 10000 is needed; 60 to 100 are usual",
    ),
    "one empty style mask": (
        lambda m: encode_style(
            m, torch.cat([STYLE, STYLE]), mask=torch.stack([torch.zeros(45, 34), torch.ones(45, 34)])
        ),
        "the style mask is empty: no part of the style is left to look at. Paint some of it white.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(model: StyleTransferModel, name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(ValueError) as caught:
        call(model)
    assert re.fullmatch(text, str(caught.value)), str(caught.value)
