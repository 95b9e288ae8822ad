"""Values that come through a link, which ComfyUI does not compare with the choices of the widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize("name", ["../docs/icon", "/etc/passwd", "masks/coffee", "", "coffee\0", "a" * 300, None])
def test_example_picture_opens_only_what_it_offers(run: Run, name: str) -> None:
    with pytest.raises(ValueError, match=r"^the picture is .*; one of .* is needed$"):
        run("ExamplePicture", picture=name, frames=1)


@pytest.mark.parametrize("frames", [0, -1, 121, 10**9])
def test_a_number_of_frames_outside_the_widgets_range(run: Run, frames: int) -> None:
    with pytest.raises(ValueError, match=rf"^frames is {frames}; 1 to 120 are needed$"):
        run("ExamplePicture", picture="coffee", frames=frames)


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "a" * 300 + ".safetensors", "a\0.pth", ""])
def test_a_model_outside_the_model_folders_is_not_there(run: Run, name: str) -> None:
    for node, inputs in (("LoadModel", {"model_name": name}), ("LoadEncoder", {"encoder_name": name})):
        with pytest.raises(Exception, match=r"is not in models/adaattn any more\. Press R and choose another"):
            run(node, **inputs)


@pytest.mark.parametrize("name", ["../docs/icon", "/etc/passwd", "coffee", "", None])
def test_example_clip_opens_only_what_it_offers(run: Run, name: str) -> None:
    with pytest.raises(ValueError, match=r"^the clip is .*; one of shore is needed$"):
        run("ExampleClip", clip=name)


def test_example_clip_has_sound(run: Run) -> None:
    parts = run("ExampleClip", clip="shore").get_components()
    assert parts.images.shape == (24, 240, 320, 3) and parts.frame_rate == 8
    assert parts.audio["waveform"].abs().max() > 0.1
