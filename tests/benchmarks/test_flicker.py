"""The benchmark of flicker: warping error and sharpness by hand; tested with small pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adaattn_core import save_image
from adaattn_core.inference.temporal import optical_flow
from benchmarks import flicker
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import frames, write_clip

pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')


def test_noise_on_a_still_clip_is_its_flicker() -> None:
    """Two frames that differ by a tenth everywhere: 25.5 of 255. The clip itself stands still."""
    still = [picture(48, 64)] * 2
    flows = [optical_flow(still[1], still[0])]
    assert flicker.flicker(still, still, flows) == pytest.approx(0, abs=0.1)
    grey = [torch.full_like(still[0], value) for value in (0.5, 0.6)]
    assert flicker.flicker(grey, still, flows) == pytest.approx(25.5, abs=0.01)


def test_sharpness_is_the_mean_laplacian() -> None:
    """One white pixel in 6 x 6 black ones: 4 on it and 1 on each neighbour, over 4 x 4 places."""
    image = torch.zeros(1, 3, 6, 6)
    image[..., 3, 3] = 1
    assert flicker.sharpness(image) == pytest.approx(8 / 16)


def test_both_flows_measure_a_movement() -> None:
    (before, present, *_) = frames(64, 96)
    for flow in (optical_flow, flicker.farneback_flow):
        assert float(flow(present, before)[:, 0, 16:-16, 16:-16].median()) == pytest.approx(2, abs=0.3)


def test_a_folder_and_a_clip_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flicker, "load_model", lambda name: small_model())
    pictures = frames(48, 64, count=5)
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(pictures):
        save_image(one, tmp_path / "folder" / f"{number}.png")
    write_clip(tmp_path / "clip.mp4", pictures)
    paths = [str(tmp_path / name) for name in ("folder", "clip.mp4")]
    assert flicker.main([*paths, "--size", "48", "--frames", "4", "--steady", "0", "0.9"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:2] for line in lines] == [
        [name, what] for name in ("folder", "clip") for what in ("the clip itself", "0", "0.9")
    ]
    for plain, steady in ((lines[1], lines[2]), (lines[4], lines[5])):
        assert float(steady[2]) < float(plain[2])
        assert plain[4] == "1.00"


def test_one_frame_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flicker.main(["clip.mp4", "--frames", "1"])
    assert "--frames is 1; 2 are needed" in capsys.readouterr().err
