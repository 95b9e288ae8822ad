"""Fitted curves recover known ones, and operations by formula are those that run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaattn_core import stylize
from adaattn_core.benchmarking import inference as bench
from adaattn_core.benchmarking.scaling import CostCurve, crossover, describe, fit, flops
from adaattn_core.cli import main
from adaattn_core.models.config import COMPACT, ModelConfig
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

SIDES = (256, 512, 1024, 2048)


@pytest.mark.parametrize("curve", [CostCurve(0.3, 2.0, 0.5), CostCurve(0.0, 2.0, 0.5), CostCurve(0.3, 0.0, 0.0)])
def test_a_known_curve_is_recovered(curve: CostCurve) -> None:
    found = fit(SIDES, [curve.at(side) for side in SIDES], 2)
    assert found == pytest.approx(curve, abs=1e-9)
    assert found.at(4096) == pytest.approx(curve.at(4096))


def test_no_coefficient_is_negative() -> None:
    """Concave values: the best parabola would have a negative coefficient."""
    found = fit(SIDES, [1.0, 3.0, 6.0, 7.0], 2)
    assert min(found) >= 0
    assert found.square == 0


def test_small_pictures_count_as_much_as_large_ones() -> None:
    """The relative error is least: of 1 and 4, a constant that errs by the same share is 1.6."""
    assert fit((16, 32, 64), [1.0, 1.0, 1.0], 0).constant == pytest.approx(1)
    assert fit((16, 32), [1.0, 4.0], 0).constant == pytest.approx((1 + 1 / 4) / (1 + 1 / 16))


def test_attention_takes_over_where_both_are_equal() -> None:
    side = crossover(linear=3.0, square=0.75)
    assert side == 2000  # 4 million pixels: 3 * 4 = 0.75 * 16
    assert crossover(1.0, 0.0) is None


@pytest.mark.parametrize(
    "config",
    [SMALL, SMALL_VIDEO, replace(SMALL, style_cells=(2, 1, 1)), replace(SMALL, projection_channels=None)],
    ids=["image", "video", "cells", "published width"],
)
def test_operations_by_formula_are_those_that_run(config: ModelConfig) -> None:
    """At a size where one row tile covers the picture and every pair of positions is computed."""
    model = small_model(config=config)
    with FlopCounterMode(display=False) as counter:
        stylize(model, picture(48, 48), picture(48, 48, seed=1))
    counted = flops(config, 48)
    assert counter.get_total_flops() == counted.convolutions + counted.attention


def test_arithmetic_of_the_full_size() -> None:
    """GFLOP at 512 x 512, counted by hand: 382 of two encodes, 190 of decoder and merge, 515 and
    71 of attention, and what the projections take."""
    counted = flops(ModelConfig(), 512)
    assert counted.attention / 1e9 == pytest.approx(515 + 71, rel=0.01)
    assert 382 + 190 < counted.convolutions / 1e9 < 1.1 * (382 + 190)
    assert flops(COMPACT, 512).convolutions < counted.convolutions / 4


def test_a_description_distinguishes_measured_from_extrapolated_sizes() -> None:
    curve = CostCurve(0.2, 1.0, 0.5)
    rows = [
        {"subject": "compact", "size": side, "seconds": curve.at(side), "peak_gib": 0.5 + side**2 / 1e7,
         "gflop": 1.0, "gigabytes": 2.0}
        for side in SIDES[:3]
    ]  # fmt: skip
    found = describe(rows, COMPACT, (512, 4096))
    assert found["crossover"] == 1414
    assert [point["size"] for point in found["points"]] == [256, 512, 1024, 4096]
    last = found["points"][-1]
    assert last["seconds_fit"] == pytest.approx(curve.at(4096))
    assert last["peak_gib_fit"] == pytest.approx(0.5 + 4096**2 / 1e7)
    assert "seconds" not in last and "gflop" not in last, "not measured"
    assert last["gflop_attention"] > last["gflop_convolutions"]


def test_the_command_fits_what_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(subject: str, size: int, weights: Path | None) -> dict[str, float]:
        pixels = size**2 / 1e6
        return {"seconds": pixels + 0.25 * pixels**2, "gflop": 300.0, "gigabytes": 7.0, "peak_gib": 0.5 + pixels}

    monkeypatch.setattr(bench, "_measure_in_process", measured)
    output = tmp_path / "numbers.json"
    words = ["bench", "--curve", "--subjects", "compact", "--repeats", "1", "--output", str(output)]
    assert main([*words, "--sizes", "256,512,1024"]) == 0
    (curve,) = json.loads(output.read_text())["curves"]
    assert curve["crossover"] == 2000
    table = capsys.readouterr().out
    assert "attention and convolution take the same time at 2000 x 2000, and the same arithmetic at " in table
    assert [line.split()[:2] for line in table.splitlines()[-5:]][-1] == ["4096", "-"]
    assert main([*words, "--sizes", "256,512"]) == 2
    assert "2 sizes came; --curve needs at least 3" in capsys.readouterr().err


def test_too_few_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 sizes came; a curve needs at least 3"):
        fit((256, 512), [1.0, 2.0], 2)


def test_torch_counts_operations_in_the_same_way() -> None:
    with FlopCounterMode(display=False) as counter:
        torch.ones(2, 3) @ torch.ones(3, 5)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5
