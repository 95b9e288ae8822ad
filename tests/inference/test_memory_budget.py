"""A memory limit bounds what a process really holds, and changes nothing else."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core import encode_style, stylize
from adaattn_core.inference import batching
from adaattn_core.inference.chunked import TransferOptions, apply_statistics_chunked
from adaattn_core.inference.memory_budget import ChunkSizes, content_budget, style_budget, unlimited_bytes
from adaattn_core.models.attention import AdaAttention, StyleKV
from adaattn_core.models.config import ModelConfig
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])


# ---------------------------------------------------------------- piece by piece


@BOTH
@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("positions", [1, 60, 10**6])
def test_a_level_painted_in_pieces_is_the_level_painted_at_once(
    config: ModelConfig, strength: float, positions: int
) -> None:
    """Pieces of one row, of a few, and all of it."""
    model, weights = small_model(config=config), [0.6, 0.4]
    content = model.encode(picture(83, 101, batch=2))
    styles = [encode_style(model, picture(45, 34, seed=seed)) for seed in (1, 2)]
    with torch.no_grad():
        statistics = model.fusion.statistics(content, styles, weights, temperature=2.0)
        wanted = model.fusion.apply_statistics(content, statistics, strength)
    found = apply_statistics_chunked(
        model.fusion,
        dict(content),
        [dict(style) for style in styles],
        TransferOptions(weights, strength, temperature=2.0),
        sizes=ChunkSizes(positions=positions),
    )
    assert found.keys() == wanted.keys()
    for level, painted in wanted.items():
        torch.testing.assert_close(found[level], painted, rtol=0, atol=2e-5)


def test_features_are_released_when_no_level_needs_them() -> None:
    model = small_model()
    content, style = model.encode(picture(64, 48)), encode_style(model, picture(32, 32))
    there: list[set[str]] = []
    stylized = apply_statistics_chunked(
        model.fusion,
        content,
        [style],
        TransferOptions(),
        progress=lambda share: there.append({name[-7:] for name in content}),
    )
    assert there[0] == {"relu3_1", "relu4_1", "relu5_1"}
    assert there[-1] == {"relu3_1"}
    assert not content
    assert not style
    assert set(stylized) == set(SMALL.levels)


@torch.no_grad()
def test_progress_rises_to_1_by_the_cost_of_each_level_and_style() -> None:
    """One block each, the deepest first. Content grids 2 x 2, 4 x 4, 8 x 8; styles 2 x 3, 3 x 5, 6 x 10 and squares."""
    model, shares = small_model(), list[float]()
    styles = [dict(model.fusion.encode_style(model.encoder(picture(*size)))) for size in ((24, 40), (32, 32))]
    features, options = model.encode(picture(32, 32)), TransferOptions([0.5, 0.5])
    apply_statistics_chunked(model.fusion, features, styles, options, progress=shares.append)
    costs = torch.tensor([4 * 6, 4 * 4, 16 * 15, 16 * 16, 64 * 60, 64 * 64])
    torch.testing.assert_close(torch.tensor(shares), costs.cumsum(0) / costs.sum())
    assert shares[-1] == 1.0


def test_a_style_that_came_as_a_picture_is_released_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with the last items of a batch; if memory runs out with them, the style is encoded again."""
    model, style = small_model(), picture(32, 32)
    kept: list[int] = []
    repaint, there = AdaAttention.statistics, weakref.WeakSet[torch.Tensor]()

    def watched(attention: AdaAttention, query: torch.Tensor, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        kept.append(len(there))
        if len(kept) == 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return repaint(attention, query, *args, **options)

    def encoded(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        made = encode_style(*args, **options)
        for level in made.values():
            there.add(level.key)
        return made

    wanted = stylize(model, picture(32, 32, batch=2), style)
    monkeypatch.setattr(batching, "BATCH_PIXELS", 1)
    monkeypatch.setattr(sys.modules["adaattn_core.inference.stylize"], "encode_style", encoded)
    monkeypatch.setattr(AdaAttention, "statistics", watched)
    assert (stylize(model, picture(32, 32, batch=2), style) - wanted).abs().max() < 2e-5
    assert kept[:3] == [3, 3, 3], "needed for the second picture"
    assert kept[3:6] == [3, 2, 1]
    assert kept[6:] == [3, 2, 1], "encoded again"


# ---------------------------------------------------------------- what a limit means


def test_no_limit_and_a_large_one_take_the_fastest_sizes() -> None:
    model, content = small_model(), picture(64, 64)
    styles = [encode_style(model, picture(32, 32))]
    assert content_budget(model, content, styles, 1.0, None, 4) == ChunkSizes(items=4)
    assert content_budget(model, content, styles, 1.0, 1000, 4) == ChunkSizes(items=4)
    assert style_budget(model, content, None) == style_budget(model, content, 1000) == ChunkSizes()


def test_less_memory_makes_everything_smaller_and_then_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adaattn_core.inference.memory_budget.memory_in_use", lambda device: 0)
    model, content = small_model(), picture(16, 16).expand(4, 3, 16, 16).repeat(1, 1, 64, 128)
    styles = [encode_style(model, picture(32, 32))]
    limits = [1.0, 0.3, 0.2, 0.15, 0.13]
    budgets = [content_budget(model, content, styles, 1.0, limit, 4) for limit in limits]
    assert [budget.items for budget in budgets] == sorted((budget.items or 0 for budget in budgets), reverse=True)
    for more, less in zip(budgets, budgets[1:], strict=False):
        assert less.items != more.items or less.chunk_bytes <= more.chunk_bytes
        assert less.items != more.items or less.positions <= more.positions
    assert budgets[-1].items == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        content_budget(model, content, styles, 1.0, 0.01, 4)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("max_memory_gb is 0.01; a content of 2048x1024 pixels needs about 0.")
    assert line.endswith("goes on in the smallest steps. Give that much, or a smaller picture.")
    needed = float(line.split("needs about ")[1].split()[0])
    caplog.clear()
    content_budget(model, content, styles, 1.0, needed + 0.01, 4)
    assert not caplog.records, "what the warning asks for is enough"


def test_styles_that_are_released_leave_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A style much larger than its content: its deep levels are free when the work on relu3_1 needs the most."""
    monkeypatch.setattr("adaattn_core.inference.memory_budget.memory_in_use", lambda device: 0)
    model, content = small_model(), picture(64, 64)
    style = encode_style(model, picture(32, 32))
    large = {level: StyleKV(one.key.repeat(1, 4000, 1), one.value.repeat(1, 4000, 1)) for level, one in style.items()}
    kept, gone = (
        content_budget(model, content, [large], 1.0, 0.025, 1, release_styles) for release_styles in (False, True)
    )
    assert gone.chunk_bytes > kept.chunk_bytes
    assert gone.positions >= kept.positions


def test_memory_without_a_limit_is_what_is_whole_and_a_few_layers() -> None:
    """By hand, full size at 1024 x 1024 on an accelerator, whose tiles have 512 MiB: four layers of a tile;
    content and style as a whole take another 0.6 GiB. On a CPU, tiles are smaller."""
    config, size = ModelConfig(), (1, 3, 1024, 1024)
    accelerator, cpu = (unlimited_bytes(config, size, torch.device(name)) / 2**30 for name in ("meta", "cpu"))
    assert 2 + 0.5 < accelerator < 2 + 1
    assert 0.6 < cpu < accelerator
    assert unlimited_bytes(config, (2, *size[1:]), torch.device("cpu")) / 2**30 > cpu + 0.6


# ---------------------------------------------------------------- measured

PROBE = """
import json, sys, torch
sys.path.insert(0, {root!r})
from adaattn_core import stylize
from adaattn_core.runtime.memory import memory_in_use, peak_memory_bytes

from adaattn_core.models.model import ModelConfig
from tests.helpers.small_models import picture, small_model

torch.set_num_threads(1)
config = ModelConfig(channels=(16, 16, 16, 16, 16), encoder_convs=(2, 1, 1, 1, 1), decoder_convs=(1, 1, 2))
model, content, style = small_model(config=config), picture(40, 12288), picture(32, 32)
stylize(model, picture(32, 32), style)
used = memory_in_use(torch.device("cpu"))
limit = used / 2**30 + {room}
limited = stylize(model, content, style, max_memory_gb=limit)
bounded = peak_memory_bytes() / 2**30
free = stylize(model, content, style)
print(json.dumps([used / 2**30, limit, bounded, peak_memory_bytes() / 2**30, float((limited - free).abs().max())]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux, which tells what a process holds")
def test_a_process_stays_below_its_limit() -> None:
    """A very wide picture, whose row tiles are too large for the memory that the limit leaves."""
    code = PROBE.format(root=str(Path(__file__).parents[2]), room=0.125)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, limit, bounded, free, difference = json.loads(done.stdout)
    assert bounded <= limit, f"{bounded:.3f} GiB, of which {used:.3f} before; allowed were {limit:.3f}"
    assert free > limit, f"without a limit it takes {free:.3f}: this test shows nothing"
    assert difference < 1e-4
    assert not done.stderr
