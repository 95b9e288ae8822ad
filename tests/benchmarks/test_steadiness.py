"""The benchmark of steadiness: the known motion by hand, and a table of small pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adaattn_core import save_image
from adaattn_core.inference.temporal import warp
from benchmarks import steadiness
from benchmarks.flicker import flicker
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import frames

pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')


@pytest.mark.parametrize("name", steadiness.MOTIONS)
def test_each_frame_is_the_one_before_along_the_known_motion(name: str) -> None:
    """But for resampling, of a picture that is smooth."""
    still = torch.nn.functional.interpolate(picture(12, 16), (96, 128), mode="bicubic").clamp(0, 1)
    moving = steadiness.moved(still, name, 64, 4)
    for before, present, flow in zip(moving.contents[:-1], moving.contents[1:], moving.flows, strict=True):
        warped, inside = warp(before, flow)
        error = ((present - warped).abs() * inside)[..., 4:-4, 4:-4]
        assert float(error.mean()) < 0.25 * float((present - before).abs().mean())
    assert flicker(moving.contents, moving.contents, moving.flows) < 1


def test_a_motion_by_hand() -> None:
    """A quarter turn at half size, then one to the right: (2, 0) from the centre comes from (1, 1)."""
    motion = steadiness.affine(90, 0.5, (1.0, 0.0))
    assert torch.allclose(steadiness.apply(motion, torch.tensor([[[2.0, 0.0]]])), torch.tensor([1.0, 1.0]), atol=1e-6)


def test_the_share_is_what_is_left_above_the_clip_itself() -> None:
    plain = steadiness.Row(12.0, 0.5, 0.4, 3.0)
    line = steadiness.line("pan", "0.7", steadiness.Row(4.5, 0.51, 0.38, 2.7), plain, 2.0)
    assert line == "| pan | 0.7 | 4.50 | 25% | 0.510 (+2.0 %) | 0.380 (-5.0 %) | 0.90 |"


@pytest.mark.slow
def test_stills_and_a_folder_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steadiness, "load_model", lambda name: small_model())
    monkeypatch.setattr(steadiness, "STYLE_SIDE", 48)
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(frames(48, 64, count=3)):
        save_image(one, tmp_path / "folder" / f"{number}.png")
    assert steadiness.main([str(tmp_path / "folder"), "--size", "48", "--frames", "3"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    rows = ["the clip itself", "frame by frame", "0.7", "0.9", "cosine, frame by frame", "cosine, 0.7"]
    assert [line[:2] for line in lines] == [[clip, row] for clip in (*steadiness.MOTIONS, "folder") for row in rows]
    for start in range(0, len(lines), len(rows)):
        assert float(lines[start + 3][2]) < float(lines[start + 1][2])


def test_one_frame_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        steadiness.main(["--frames", "1"])
    assert "--frames is 1; 2 are needed" in capsys.readouterr().err
