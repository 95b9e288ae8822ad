"""Frames come out upright, in the colours of BT.709, and over white where they are transparent."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaattn_core import load_image
from adaattn_core.io.clip_pixels import ClipPixels, Orientation
from adaattn_core.io.images import to_numpy
from adaattn_core.io.video_reader import open_clip
from tests.helpers.tiny_clips import frames, turn, write_clip

av = pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
REPORTS = Path(__file__).parents[1] / "data" / "reports"


def first_frame(path: Path | str) -> Tensor:
    with open_clip(path) as clip:
        return clip.image(next(iter(clip.frames())))


# ---------------------------------------------------------------- orientation

MATRICES: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): lambda image: image.flip(3),
    (1, 0, 0, -1): lambda image: image.flip(2),
    (-1, 0, 0, -1): lambda image: image.flip(2, 3),
    (0, 1, -1, 0): lambda image: image.rot90(-1, (2, 3)),
    (0, -1, 1, 0): lambda image: image.rot90(1, (2, 3)),
    (0, 1, 1, 0): lambda image: image.transpose(2, 3),
    (0, -1, -1, 0): lambda image: image.rot90(2, (2, 3)).transpose(2, 3),
}
"""(a, b, c, d) of x' = a x + c y, y' = b x + d y -> the same by torch."""


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    path = tmp_path / "in.mp4"
    write_clip(path, frames(count=1))
    stored = first_frame(path)
    turn(path, matrix)
    with open_clip(path) as clip:
        found = clip.image(next(iter(clip.frames())))
        assert clip.size == found.shape[-2:]
    assert torch.equal(found, MATRICES[matrix](stored))


def test_the_clip_of_the_report_is_mirrored() -> None:
    with open_clip(REPORTS / "hflip.mp4") as clip:
        assert clip.pixels.orientation == Orientation(flip_x=True)


# ---------------------------------------------------------------- colours

TO_BT2020 = np.linalg.inv(
    np.array([[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]])
)
"""Linear BT.709 to BT.2020. Source: ITU-R BT.2087."""


def linear(image: Tensor) -> NDArray[np.float64]:
    values = to_numpy(image).astype(np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def pq(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signal of light in units of white, 203 cd/m². Source: SMPTE ST 2084."""
    power = (light * 203 / 10000) ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


def hlg(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signal of light in units of white, for a display of 1000 cd/m². Source: ITU-R BT.2100."""
    light = light * 203 / 1000
    luma = np.maximum(light @ [0.2627, 0.678, 0.0593], 1e-9)[..., None]
    scene = light * luma ** (1 / 1.2 - 1)
    root = np.sqrt(3 * scene)
    return np.where(scene <= 1 / 12, root, 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)


def frame_of(signal: NDArray[np.float64], transfer: int) -> Any:
    frame = av.VideoFrame.from_ndarray((signal.clip(0, 1) * 65535 + 0.5).astype(np.uint16), format="rgb48le")
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 0, 9, transfer, 2
    frame.time_base, frame.pts = Fraction(1, 8), 0
    return frame


@pytest.mark.parametrize(("name", "transfer", "encode"), [("PQ", 16, pq), ("HLG", 18, hlg)])
def test_hdr_comes_back_as_the_picture_that_it_was_made_of(
    name: str, transfer: int, encode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    content = load_image(REPORTS / "content.png")
    frame = frame_of(encode(linear(content) @ TO_BT2020.T), transfer)
    pixels = ClipPixels(f"{name}.mp4", frame)
    error = (pixels.image(frame) - content).abs() * 255
    assert float(error.mean()) < 1.5, "FFmpeg's table of colours has 65 entries a side"
    assert caplog.messages == [
        f"{name}.mp4: its HDR colours ({name}, BT.2020) are mapped to BT.709; light above 203 cd/m² becomes white"
    ]
    pixels.image(frame)
    assert len(caplog.messages) == 1


def test_the_hdr_clip_of_the_report_comes_back() -> None:
    content, found = load_image(REPORTS / "content.png"), first_frame(REPORTS / "true_pq.mp4")
    difference = (found - content) * 255
    assert float(difference.abs().mean()) < 8, "random colours, stored once for four pixels"
    assert float(difference.mean((2, 3)).abs().max()) < 1.5, "the mean colour is right"


def test_wide_colours_without_hdr_are_mapped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    grey_and_red = torch.full((1, 3, 16, 32), 0.5)
    grey_and_red[..., 16:] = torch.tensor([0.75, 0.25, 0.25]).view(1, 3, 1, 1)
    values = to_numpy(grey_and_red).astype(np.float64) / 255
    frame = frame_of((values**2.4 @ TO_BT2020.T) ** (1 / 2.4), 14)  # displays follow BT.1886
    found = ClipPixels("wide.mp4", frame).image(frame)
    torch.testing.assert_close(found, grey_and_red, atol=3 / 255, rtol=0)
    assert caplog.messages == ["wide.mp4: its wide colours (BT.2020) are mapped to BT.709"]


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize(("suffix", "codec", "layout"), [(".mov", "png", "rgba"), (".mov", "qtrle", "argb"),
                                                         (".webm", "libvpx-vp9", "yuva420p"), (".mkv", "ffv1", "bgra"),
                                                         ])  # fmt: skip
def test_transparent_parts_are_over_white(
    tmp_path: Path, suffix: str, codec: str, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"in{suffix}"
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[:, :, 1] = 200  # green, hidden on the right
    pixels[:, :24, 3] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, layout
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=layout)))
        container.mux(stream.encode())
    found = first_frame(path)
    assert float((found[..., 32:] - 1).abs().max()) < 4 / 255, "white, in the precision of the codec"
    assert float((found[0, 1, :, :16] - 200 / 255).abs().max()) < 4 / 255
    assert float(found[0, 0, :, :16].max()) < 8 / 255
    assert caplog.messages == [
        f"{path}: its transparent parts are painted over white, since the clip that is written has none"
    ]


def test_the_transparent_clip_of_the_report_is_over_white() -> None:
    with av.open(str(REPORTS / "alpha_png.mov")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgba")
    found = to_numpy(first_frame(REPORTS / "alpha_png.mov"))
    hidden = stored[..., 3] == 0
    assert hidden.any() and (found[hidden] == 255).all()
    assert (found[stored[..., 3] == 255] == stored[stored[..., 3] == 255][:, :3]).all()
