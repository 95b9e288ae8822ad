"""The node AdaAttN Stylize Video: the frames of a clip in one style, steadied along the optical flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from . import bridge, files
from .clips import Clip, to_clip
from .compat import call_supported
from .core import (
    batching,
    encode_style,
    layout,
    masks,
    memory_in_use,
    opacity,
    remarks,
    stages,
    sub_progress,
    temporal,
    validation,
)
from .loaders import model_input
from .outcome import told
from .pictures import is_no_mask, to_alpha, to_image, to_pictures, to_style, with_hidden
from .sockets import (
    STYLE_SIZE,
    attention_inputs,
    keep_color,
    mask_inputs,
    schema,
    strength,
    style_size,
    temperature,
    unit_slider,
    weight,
)
from .stylize import SLOTS, checked_size, reduced, style_slot

GIB_AT_1080P = 1.5
"""Memory that painting a chunk may take at 1920 x 1080, beside what is there already; larger frames in proportion."""


class StylizeVideo(io.ComfyNode):
    """Stylizes the frames of a clip in order, and steadies them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "StylizeVideo",
            "AdaAttN Stylize Video",
            aliases=["stylize video", "clip", "flicker", "steady", "frames", "temporal"],
            description="Repaints a clip in the style of a picture, or in a mix of up to four styles. Each frame is "
            "blended with the one before along the optical flow, so that the clip does not flicker. Sound and frame "
            "rate of a video stay as they are.",
            inputs=[
                model_input(files.COMPACT),
                io.MultiType.Input(
                    "content", types=[io.Image, io.Video], display_name="content",
                    tooltip="The clip to repaint: a video, or its frames in order as a batch of images. It keeps its "
                    "size.",
                ),
                io.Image.Input(
                    "style", display_name="style", tooltip="The picture whose style is used, for the whole clip."
                ),
                strength(),
                unit_slider(
                    "steady", "steady", temporal.DEFAULT_STEADY,
                    "Smooths the clip over time: the weight of the frame before, moved along the optical flow, where "
                    "both show the same thing. 0 repaints every frame independently. Needs OpenCV.",
                    optional=True,
                ),
                style_size(),
                keep_color(),
                *mask_inputs(),
                io.Mask.Input(
                    "style_mask", display_name="style mask", optional=True,
                    tooltip="The part of the first style that is used: white. The mask can have any size; it is "
                    "resized to the style.",
                ),
                weight(
                    "style_weight", "weight", "Weight of the first style in a mix of several styles.", advanced=True
                ),
                *(one for slot in SLOTS for one in style_slot(slot)),
                temperature(),
                *attention_inputs(),
                call_supported(
                    io.Float.Input, "fps", display_name="frame rate", default=24.0, min=1.0, max=120.0, step=1.0,
                    optional=True, advanced=True,
                    tooltip="Frames per second of the video output if the content is a batch of images. A video keeps "
                    "its own frame rate.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The repainted frames."),
                io.Video.Output(
                    "video", display_name="video", tooltip="The repainted frames as a video, with the sound of the "
                    "content. Connect to Save Video.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **_inputs: object) -> str:
        return files.stamp(model_name, bridge.find_file)

    @classmethod
    @told
    def execute(
        cls,
        model_name: str,
        content: Any,  # noqa: ANN401 (IMAGE or VIDEO)
        style: Tensor,
        strength: float,
        steady: float = temporal.DEFAULT_STEADY,
        style_size: int = STYLE_SIZE,
        keep_color: bool = False,
        content_mask: Tensor | None = None,
        mask_invert: bool = False,
        mask_feather: int = 0,
        mask_threshold: float = 0.0,
        style_mask: Tensor | None = None,
        style_weight: float = 1.0,
        temperature: float = 1.0,
        attention_mode: stages.Attention = "exact",
        sample_seed: int = 0,
        fps: float = 24.0,
        **more_styles: Any,  # noqa: ANN401 (style_2, style_2_weight, ...)
    ) -> io.NodeOutput:
        clip = to_clip(content)
        mask = ClipMask(content_mask, len(clip.frames), mask_threshold, mask_invert, mask_feather)
        more = [slot for slot in SLOTS if more_styles.get(f"style_{slot}") is not None]
        weights = [style_weight, *(more_styles.get(f"style_{slot}_weight", 1.0) for slot in more)]
        images = [style, *(more_styles[f"style_{slot}"] for slot in more)]
        shrink = partial(reduced, short_side=checked_size(style_size))
        of_styles = zip(images, [style_mask, *[None] * len(more)], strict=True)
        styles = [to_style(check_single(image), area, shrink) for image, area in of_styles]
        options = temporal.ClipOptions(weights, strength, temperature, keep_color, possible(steady, len(clip.frames)))
        validation.normalize_weights(weights, len(weights))
        part, seed = bridge.model_part(model_name), sample_seed if attention_mode == "sampled" else 0
        first = next(clip.chunks())
        with bridge.loaded([part], to_pictures(clip[first], "content"), *(one for one, _ in styles)) as device:
            encode = partial(encode_style, part.module, attention=attention_mode, seed=seed)
            encoded = [
                bridge.shelf(part, device, picture, area, attention_mode, seed).get(
                    "style", partial(encode, picture, mask=area)
                )
                for picture, area in styles
            ]
            stylizer = temporal.ClipStylizer(part.module, encoded, options)
            image = painted(clip, stylizer, mask, device)
        stylizer.remark_cuts()
        mask.remark_empty()
        return io.NodeOutput(image, clip.as_video(image, fps))


def painted(clip: Clip, stylizer: temporal.ClipStylizer, mask: ClipMask, device: torch.device) -> Tensor:
    """IMAGE with the frames of a clip, stylized and smoothed."""
    progress, (frames, height, width, _) = bridge.NodeProgress(), clip.frames.shape
    channels = 4 if clip.has_alpha() else 3
    image = bridge.empty_image(torch.empty(1, dtype=torch.float32).expand(frames, channels, height, width))
    image[..., 3:] = 1
    for items in clip.chunks():
        content = clip[items]
        pictures = opacity.visible_color(to_pictures(content, "content"), to_alpha(content))
        area = mask.at(items, pictures)
        contents, areas = bridge.to_device((pictures, area), device)
        share = sub_progress(progress, items.start / frames, items.stop / frames)
        results = stylizer.paint(contents, memory_limit(contents), share)
        contents = stages.clamp_pictures(contents)
        for number, frame in enumerate(range(items.start, items.stop)):
            one = slice(number, number + 1)
            result = stylizer.smooth(contents[one], results[one], batching.slice_batch(areas, one))
            here = batching.slice_batch(area, one)
            shown = with_hidden(to_image(result), content[one], here, stylizer.options.strength)
            image[frame : frame + 1, ..., : shown.shape[-1]] = shown
            progress((frame + 1) / frames)
        progress.show(result)
    return image


class ClipMask:
    """The content mask of a clip: one for all frames, or one for each, fitted to some frames at a time."""

    def __init__(self, mask: Tensor | None, frames: int, threshold: float, invert: bool, feather: int) -> None:
        self.mask = None if mask is None or is_no_mask(mask) else mask
        if self.mask is not None and self.mask.ndim > 2 and len(self.mask) not in (1, frames):
            came, needed = layout.counted(len(self.mask), "mask"), layout.counted(frames, "frame")
            raise ValueError(f"{came} for {needed}: give 1, or one for each (content mask)")
        self.shape = partial(masks.shape_mask, threshold=threshold, invert=invert, feather=feather)
        self.is_empty = True

    def at(self, items: slice, pictures: Tensor) -> Tensor | None:
        """Where some frames, (B, 3, H, W), are painted: (B or 1, 1, H, W); None for everywhere."""
        if self.mask is None:
            return None
        part = self.mask if self.mask.ndim == 2 or len(self.mask) == 1 else self.mask[items]
        shaped = self.shape(masks.fit_mask(part, pictures, "content", stretch=True)).to(pictures.device)
        self.is_empty = self.is_empty and not bool(shaped.any())
        return shaped

    def remark_empty(self) -> None:
        """Says after the last frame that nothing was painted."""
        if self.mask is not None and self.is_empty:
            remarks.remark(
                "",
                "the content mask is empty: nothing is painted there. Paint some of it white, change invert or "
                "threshold, or disconnect it.",
            )


def check_single(style: Tensor) -> Tensor:
    """The IMAGE of a style, which must be one picture."""
    if len(style) > 1:
        raise ValueError(
            f"the style has {len(style)} pictures; a clip has one style. Choose a picture, or mix several as style 2 "
            "to style 4."
        )
    return style


def possible(steady: float, frames: int) -> float:
    """The smoothing that can be done; a remark says where it is less than was asked for."""
    if steady and frames == 1:
        remarks.remark("", "the clip has 1 frame, so that there is nothing to steady; give all its frames as one batch")
    elif steady and not temporal.can_steady():
        remarks.remark(
            "",
            "OpenCV is not installed, so that every frame is painted independently and the clip may flicker. Install "
            "the requirements.txt of this pack: pip install opencv-python-headless",
        )
        return 0.0
    return steady


def memory_limit(contents: Tensor) -> float:
    """`max_memory_gb` for painting some frames: what is in use now, and GIB_AT_1080P for its size."""
    pixels = contents.shape[-2] * contents.shape[-1]
    return memory_in_use(contents.device) / 2**30 + GIB_AT_1080P * max(1.0, pixels / (1920 * 1080))
