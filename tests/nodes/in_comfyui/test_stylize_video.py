"""AdaAttN Stylize Video in ComfyUI: frames and videos, what passes through untouched, memory, cancel, bad input."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import encode_style, load_model
from adaattn_core.inference.temporal import ClipOptions, ClipStylizer
from tests.helpers.comfy_pack import pack_module
from tests.helpers.comparison import assert_same
from tests.helpers.node_images import STYLE, image, pixels
from tests.helpers.small_models import picture
from tests.helpers.tiny_clips import frames, with_noise, write_clip

pytest.importorskip("cv2", reason="needs OpenCV: pip install opencv-python-headless")

Run = Callable[..., Any]
FRAMES = with_noise(frames(32, 48, count=5), 0.05)
CLIP = image(torch.cat(FRAMES))


@pytest.fixture
def paint(run: Run) -> Run:
    """`paint(content, ...)` is the node's image and its video."""

    def call(content: Any, **inputs: Any) -> tuple[Tensor, Any]:
        given = {"model_name": "built-in", "style": image(STYLE), "strength": 1.0, **inputs}
        made: tuple[Tensor, Any] = run("StylizeVideo", content=content, **given)
        return made

    return call


@pytest.fixture
def notices(host: SimpleNamespace) -> Callable[..., list[str]]:
    """The lines that the page shows after a run."""

    def call(content: Any, **inputs: Any) -> list[str]:
        given = {"model_name": "built-in", "style": image(STYLE), "strength": 1.0, **inputs}
        output = host.nodes["AdaAttN_StylizeVideo"].execute(content=content, **given)
        return list((output.ui or {}).get("adaattn_notices", []))

    return call


def expected(contents: list[Tensor], **options: Any) -> Tensor:
    """What `adaattn video` makes of the frames: (B, 3, H, W)."""
    model = load_model("compact-0.1")
    stylizer = ClipStylizer(model, [encode_style(model, STYLE)], ClipOptions(**options))
    return torch.cat([stylizer.smooth(one, stylizer.paint(one)) for one in contents])


def video(**components: Any) -> Any:
    from comfy_api.latest import InputImpl, Types

    return InputImpl.VideoFromComponents(Types.VideoComponents(**{"frame_rate": Fraction(25), **components}))


def file_video(path: Path, **options: Any) -> Any:
    from comfy_api.latest import InputImpl

    write_clip(path, FRAMES, **options)
    return InputImpl.VideoFromFile(str(path))


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("options", [{}, {"steady": 0.0}, {"steady": 0.9, "strength": 0.6}, {"keep_color": True}])
def test_frames_are_those_of_the_library(paint: Run, options: dict[str, Any]) -> None:
    result, _ = paint(CLIP, **options)
    assert_same(pixels(result), expected(FRAMES, **options))


def test_chunks_are_no_seams(paint: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = paint(CLIP)
    monkeypatch.setattr(pack_module("adaattn_core.inference.batching"), "BATCH_PIXELS", 2 * 32 * 48)
    result, _ = paint(CLIP)
    assert_same(result, wanted)


def test_the_style_is_encoded_once(paint: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = pack_module("nodes.stylize_video"), []

    def watched(*args: Any, **options: Any) -> Any:
        seen.append(args)
        return encode(*args, **options)

    encode = module.encode_style
    monkeypatch.setattr(module, "encode_style", watched)
    pack_module("nodes.bridge")._models.clear()
    paint(CLIP)
    paint(CLIP, strength=0.5)
    assert len(seen) == 1


def test_styles_are_mixed_by_weight(paint: Run) -> None:
    other = image(picture(40, 40, seed=7))
    alone, _ = paint(CLIP)
    mixed, _ = paint(CLIP, style_weight=1.0, style_2=other, style_2_weight=0.0)
    assert_same(mixed, alone)
    swapped, _ = paint(CLIP, style_weight=0.0, style_2=other, style_2_weight=1.0)
    assert_same(swapped, paint(CLIP, style=other)[0])


def test_outside_the_mask_is_the_content(paint: Run) -> None:
    left = (torch.arange(48) < 24).float().expand(32, 48)
    result, _ = paint(CLIP, content_mask=left)
    assert torch.equal(result[:, :, 24:], CLIP[:, :, 24:])
    assert not torch.equal(result[:, :, :24], CLIP[:, :, :24])
    moving = torch.stack([left.roll(2 * number, 1) for number in range(5)])
    result, _ = paint(CLIP, content_mask=moving)
    assert torch.equal(result[moving == 0], CLIP[moving == 0])


def test_a_clip_keeps_its_opacity(paint: Run) -> None:
    alpha = torch.ones(5, 32, 48, 1)
    alpha[2, :8] = 0
    result, made = paint(torch.cat([CLIP, alpha], dim=-1))
    assert torch.equal(result[..., 3:], alpha)
    assert made.get_components().images.shape == (5, 32, 48, 3)


def test_an_input_is_left_as_it_was(paint: Run) -> None:
    before = CLIP.clone()
    paint(CLIP)
    assert torch.equal(CLIP, before)


# ---------------------------------------------------------------- videos


def test_sound_and_frame_rate_of_a_video_pass_through_untouched(paint: Run) -> None:
    sound = {"waveform": torch.randn(1, 2, 9000), "sample_rate": 44100}
    result, made = paint(video(images=CLIP, audio=sound, frame_rate=Fraction(30000, 1001)))
    parts = made.get_components()
    assert parts.audio is sound and parts.frame_rate == Fraction(30000, 1001)
    assert torch.equal(parts.images, result)
    assert_same(pixels(result), expected(FRAMES))


def test_a_file_becomes_a_file_with_its_sound(paint: Run, tmp_path: Path) -> None:
    """As the host writes the sound of the unpainted clip: a tone, coded anew. Old hosts make mono stereo."""
    from comfy_api.latest import InputImpl

    given = file_video(tmp_path / "in.mp4", rate=8, sound="aac")
    _, made = paint(given)
    written = []
    for name, clip in (("painted", made), ("unpainted", InputImpl.VideoFromComponents(given.get_components()))):
        clip.save_to(str(tmp_path / f"{name}.mp4"))
        written.append(InputImpl.VideoFromFile(str(tmp_path / f"{name}.mp4")).get_components())
    there, plain = written
    assert there.frame_rate == 8 and there.images.shape == (5, 32, 48, 3)
    assert torch.equal(there.audio["waveform"], plain.audio["waveform"])
    assert float(plain.audio["waveform"].abs().max()) > 0.01, "silence"


def test_a_batch_of_images_becomes_a_video_at_the_frame_rate_of_the_node(paint: Run) -> None:
    for fps, rate in ((24.0, Fraction(24)), (23.976, Fraction(23976, 1000))):
        _, made = paint(CLIP[:2], fps=fps)
        parts = made.get_components()
        assert parts.frame_rate == rate and parts.audio is None


def test_colours_of_ten_bits_stay_at_ten(paint: Run) -> None:
    from comfy_api.latest import InputImpl, Types

    if "bit_depth" not in inspect.signature(InputImpl.VideoFromComponents).parameters:
        pytest.skip("the videos of this ComfyUI have no bit depth; a newer COMFYUI_PATH runs this")
    components = Types.VideoComponents(images=CLIP, frame_rate=Fraction(25))
    _, made = paint(InputImpl.VideoFromComponents(components, bit_depth=10))
    assert made.get_bit_depth() == 10


# ---------------------------------------------------------------- long work


def test_every_chunk_moves_the_progress_and_shows_a_preview(
    host: SimpleNamespace, paint: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module("adaattn_core.inference.batching"), "BATCH_PIXELS", 1)
    told: list[tuple[int, int, Any]] = []
    host.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: told.append((value, total, preview)))
    try:
        paint(CLIP)
    finally:
        host.utils.set_progress_bar_global_hook(None)
    values = [value for value, _, _ in told]
    assert values == sorted(values) and values[-1] == told[0][1]
    assert [one[1].size for _, _, one in told if one is not None] == [(48, 32)] * 5


def test_cancel_ends_a_clip_at_any_moment_and_the_next_prompt_runs(
    host: SimpleNamespace, paint: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it begins, inside a layer, and while a frame is smoothed."""
    wanted, _ = paint(CLIP)
    temporal = pack_module("adaattn_core.inference.temporal")
    steps = {
        "layer": (torch.nn.functional, "conv2d"),
        "flow": (temporal, "optical_flow"),
        "paint": (temporal, "stylize"),
    }
    for owner, name in steps.values():
        work = getattr(owner, name)
        calls: list[int] = []

        def pressed(*args: Any, work: Callable[..., Any] = work, calls: list[int] = calls, **options: Any) -> Any:
            calls.append(1)
            host.mm.interrupt_current_processing(True)
            return work(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(host.mm.InterruptProcessingException):
            patch.setattr(owner, name, pressed)
            pack_module("nodes.bridge")._models.clear()
            paint(CLIP)
        assert len(calls) == 1, f"{name} went on"
        assert not host.mm.processing_interrupted()
        result, _ = paint(CLIP)
        assert torch.equal(result, wanted)


def test_a_chunk_is_painted_within_the_memory_of_its_size(host: SimpleNamespace) -> None:
    limit, in_use = pack_module("nodes.stylize_video").memory_limit, pack_module("nodes.stylize_video").memory_in_use
    for size, more in (((64, 64), 1.5), ((1080, 1920), 1.5), ((2160, 3840), 6.0)):
        content = torch.empty(1).expand(1, 3, *size)
        assert limit(content) - in_use(content.device) / 2**30 == pytest.approx(more, abs=0.05)


# ---------------------------------------------------------------- what cannot be done as asked


def test_without_opencv_a_clip_is_painted_frame_by_frame(
    paint: Run, notices: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = paint(CLIP, steady=0.0)
    monkeypatch.setitem(sys.modules, "cv2", None)
    result, _ = paint(CLIP, steady=0.7)
    assert torch.equal(result, wanted)
    (line,) = notices(CLIP, steady=0.7)
    assert line.startswith("OpenCV is not installed, so that every frame is painted independently")
    assert "pip install opencv-python-headless" in line
    assert notices(CLIP, steady=0.0) == []


def test_one_frame_is_painted_and_a_line_says_that_it_is_alone(paint: Run, notices: Callable[..., list[str]]) -> None:
    result, _ = paint(CLIP[:1])
    assert_same(pixels(result), expected(FRAMES[:1]))
    (line,) = notices(CLIP[:1])
    assert line == "the clip has 1 frame, so that there is nothing to steady; give all its frames as one batch"


def test_a_cut_at_every_frame_is_painted_frame_by_frame(paint: Run, notices: Callable[..., list[str]]) -> None:
    dark, light = picture(32, 48, seed=1) * 0.3, 1 - picture(32, 48, seed=2) * 0.3
    cuts = image(torch.cat([dark, light] * 2))
    assert torch.equal(paint(cuts)[0], paint(cuts, steady=0.0)[0])
    assert notices(cuts) == ["all 4 frames differ like shots of their own, so that none is steadied by the one before"]


def test_an_empty_mask_paints_nothing_and_says_so(paint: Run, notices: Callable[..., list[str]]) -> None:
    black = torch.zeros(32, 48)
    assert torch.equal(paint(CLIP, content_mask=black)[0], CLIP)
    (line,) = notices(CLIP, content_mask=black)
    assert line.startswith("the content mask is empty")


def test_a_mask_that_is_black_in_some_frames_is_no_remark(notices: Callable[..., list[str]]) -> None:
    masks = torch.zeros(5, 32, 48)
    masks[3] = 1
    assert notices(CLIP, content_mask=masks) == []


MIXED = [CLIP[:1], image(picture(40, 48))]
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "weights": (CLIP, {"style_weight": 0.0}, r"style weights are \[0\.0\]; they must not be negative, .*"),
    "no frames": (CLIP[:0], {}, r"the clip has no frames; at least 1 is needed"),
    "no frames in a list": ([], {}, r"the clip has no frames; at least 1 is needed"),
    "mixed sizes": (
        MIXED, {},
        r"the frames of a clip need one size: item 2 of the list is 1 picture of 48x40 pixels with 3 channels, the "
        r"first is 1 picture of 48x32 pixels with 3 channels\. Resize them first\.",
    ),
    "too small": (torch.zeros(3, 9, 12, 3), {}, r"the content is 12x9 pixels; at least 16x16 are needed\. .*"),
    "0 to 255": (CLIP * 255, {}, r"the content holds values from .* to .*; \[0, 1\] is needed.*"),
    "nan": (CLIP * float("nan"), {}, r"the content holds NaN or infinite values; .*"),
    "masks": (CLIP, {"content_mask": torch.ones(3, 32, 48)}, r"3 masks for 5 frames: give 1, or one for each .*"),
    "styles": (
        CLIP, {"style": image(picture(32, 32, batch=3))}, r"the style has 3 pictures; a clip has one style\. Choose .*",
    ),
    "steady": (CLIP, {"steady": 1.5}, r"steady is 1\.5; it must be between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_line(paint: Run, name: str) -> None:
    content, inputs, text = WRONG[name]
    with pytest.raises(ValueError, match=rf"^{text}$"):
        paint(content, **inputs)


def test_a_video_without_frames_is_one_line(paint: Run) -> None:
    with pytest.raises(ValueError, match=r"^the clip has no frames; at least 1 is needed$"):
        paint(video(images=torch.zeros(0, 0, 0, 3)))


def test_a_file_that_is_no_video_is_the_hosts_error(paint: Run) -> None:
    from comfy_api.latest import InputImpl

    with pytest.raises(Exception, match="Invalid data"):
        paint(InputImpl.VideoFromFile(io.BytesIO(b"no video")))
