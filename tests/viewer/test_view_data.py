"""The viewer's data: the library's weights on a grid, small enough for a page, read alike by the viewer's script."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from adaattn_core.inference.attention_map import PointAttention, attention_map, to_brightness
from adaattn_core.inference.stages import ImageFeatures, extract_features
from adaattn_core.models.config import IMAGE_LEVELS
from adaattn_core.viewer import view_data as module
from adaattn_core.viewer.view_data import MAX_BYTES, Grid, dequantize, level_table, overlaps, quantize, viewer_grid
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

MODEL = small_model()
SCRIPTS = Path(module.__file__).parent
HALF_STEP = 1 / 255
"""Of the largest weight: between neighbouring values near it lie 2/255."""


def seen(height: int, width: int, batch: int = 1, seed: int = 0) -> ImageFeatures:
    return extract_features(MODEL.encoder, picture(height, width, batch, seed))


CONTENT, STYLE = seen(64, 96), seen(48, 80, seed=1)
"""The grid of the style is 12 x 20: that of relu3_1, twice that of relu4_1, and four times that of relu5_1."""


def view(content: ImageFeatures = CONTENT, style: ImageFeatures = STYLE, **options: Any) -> bytes:
    return module.view_data(MODEL.fusion, content, style, SMALL.encoder_convs, **options)


def description(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    read: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["view"])
    return read


# ---------------------------------------------------------------- the weights


@pytest.mark.parametrize(("level", "finer"), [("relu3_1", 1), ("relu4_1", 2), ("relu5_1", 4)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_weights_are_those_of_the_attention_map(level: str, finer: int, temperature: float) -> None:
    """A style position of a deeper level is spread over the cells in it."""
    data = view(temperature=temperature)
    tensors, about = load(data), description(data)
    assert (about["style"]["rows"], about["style"]["columns"]) == (12, 20)
    shown = dequantize(tensors[f"weights.{level}"], tensors[f"largest.{level}"])
    for index, point in enumerate(Grid(about["content"]["rows"], about["content"]["columns"]).centers()):
        if index % 50:
            continue
        wanted = attention_map(MODEL.fusion, CONTENT, STYLE, point, level, temperature)[0] / finer**2
        wanted = wanted.repeat_interleave(finer, 0).repeat_interleave(finer, 1).flatten()
        assert float((shown[index] - wanted).abs().max()) <= HALF_STEP * float(wanted.max()) + 1e-7


@pytest.mark.parametrize("size", [(50, 83), (17, 200), (300, 200)])
def test_cells_of_any_size_share_all_of_the_attention(size: tuple[int, int]) -> None:
    style = seen(*size)
    for level in IMAGE_LEVELS:
        attention = PointAttention(MODEL.fusion, CONTENT, style, level)
        table = level_table(attention, Grid(2, 3), viewer_grid(style.picture, 100), style.picture)
        torch.testing.assert_close(table.weights.sum(dim=1), torch.ones(6), rtol=0, atol=1e-4)


def test_positions_are_shared_out_by_length() -> None:
    """Three cells over two positions: the middle one has a third of each."""
    wanted = torch.tensor([[2 / 3, 0.0], [1 / 3, 1 / 3], [0.0, 2 / 3]])
    torch.testing.assert_close(overlaps(3, 2, 0.5), wanted)


def test_the_last_position_ends_with_the_picture() -> None:
    """17 pixels, positions of 16: the second one is 1 pixel long, and lies in the second of two cells."""
    wanted = torch.tensor([[8.5 / 16, 0.0], [7.5 / 16, 1.0]])
    torch.testing.assert_close(overlaps(2, 2, 16 / 17), wanted)


def test_points_are_computed_in_chunks_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = view()
    monkeypatch.setattr(module, "CHUNK_WEIGHTS", 1000)
    for name, tensor in load(view()).items():
        torch.testing.assert_close(tensor, load(whole)[name], rtol=1e-5, atol=1e-6 if tensor.is_floating_point() else 1)


def test_a_model_of_one_level_has_one_table() -> None:
    video = small_model(config=SMALL_VIDEO)
    content, style = (extract_features(video.encoder, picture(*size)) for size in ((40, 40), (32, 48)))
    data = module.view_data(video.fusion, content, style, SMALL_VIDEO.encoder_convs)
    assert [level["name"] for level in description(data)["levels"]] == ["relu3_1"]


# ---------------------------------------------------------------- entropy


def entropies(data: bytes) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load(data).items() if name.startswith("entropy")}


def test_attention_to_a_style_of_one_colour_is_flat() -> None:
    plain = extract_features(MODEL.encoder, torch.full((1, 3, 48, 80), 0.5))
    for name, values in entropies(view(style=plain)).items():
        torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-3, msg=name)


def test_attention_at_a_low_temperature_is_sharp() -> None:
    flat, sharp = entropies(view()), entropies(view(temperature=0.001))
    for name in flat:
        assert sharp[name].mean() < 0.1 < flat[name].mean()


def test_two_equal_places_of_four_have_half_the_entropy() -> None:
    """log 2 of log 4."""
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert float(torch.special.entr(weights).sum() / math.log(4)) == pytest.approx(0.5)


# ---------------------------------------------------------------- the file


def test_values_are_the_root_of_the_share_of_the_largest() -> None:
    values, largest = quantize(torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.0, 0.0]]))
    assert values.tolist() == [[255, 128, 0], [0, 0, 0]]
    assert largest.tolist() == pytest.approx([0.8, 0.0])


def test_the_file_of_large_noise_keeps_to_its_limit() -> None:
    noise = [
        extract_features(MODEL.encoder, torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(seed)))
        for seed in (0, 1)
    ]
    assert len(view(*noise)) <= MAX_BYTES


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((512, 512), (27, 27)),
        ((400, 600), (22, 33)),
        ((600, 400), (33, 22)),
        ((16, 8192), (1, 512)),
        ((16, 16), (4, 4)),
    ],
)
def test_the_grid_is_nearly_square_and_no_finer_than_the_finest_level(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert viewer_grid(torch.empty(1, 3, 1, 1).expand(1, 3, *size), 729) == grid


def test_the_file_says_what_it_shows() -> None:
    about = description(view(seen(64, 96, batch=3), titles=("<b>", "b"), temperature=2.0))
    assert about["batch"] == 3 and about["temperature"] == 2.0
    assert (about["content"]["width"], about["content"]["height"], about["content"]["title"]) == (96, 64, "<b>")
    # two convolutions: 5; a pool: 6; one: 10; a pool: 12; one: 20
    # another: 28; a pool: 32; one: 48; a pool: 56; one: 88
    assert [level["receptive_field"] for level in about["levels"]] == [20, 48, 88]
    assert [level["stride"] for level in about["levels"]] == [4, 8, 16]


# ---------------------------------------------------------------- the script that reads it

READ = """
import { readFileSync } from "node:fs";
import { readView, brightness, strongest, indexAt, centerOf } from "%s/attention_data.mjs";
const bytes = readFileSync(process.argv[2]);
const view = readView(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const plain = (values) => [...values];
console.log(JSON.stringify({
  tabs: view.tabs,
  where: plain(view.where("relu4_1", 7)),
  mean: plain(view.where("mean", 7)),
  use: plain(view.use("relu4_1", 9)),
  entropy: plain(view.entropy("relu4_1")),
  brightness: plain(brightness(view.where("relu4_1", 7))),
  strongest: strongest(Float32Array.from([0.1, 0.3, 0.2, 0.4]), 3),
  index: [[0, 0], [0.999, 0.999], [1, 1], [0.5, 0]].map(([x, y]) => indexAt({ rows: 2, columns: 4 }, x, y)),
  center: centerOf({ rows: 2, columns: 4 }, 6),
}));
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the viewer's script reads from the file."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: put `node` on the PATH to run the viewer's script")
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "view.safetensors").write_bytes(view())
    (folder / "read.mjs").write_text(READ % SCRIPTS.as_uri(), encoding="utf-8")
    command = ["node", str(folder / "read.mjs"), str(folder / "view.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def test_the_script_reads_the_same_numbers(answers: dict[str, Any]) -> None:
    tensors = load(view())
    tables = {level: dequantize(tensors[f"weights.{level}"], tensors[f"largest.{level}"]) for level in IMAGE_LEVELS}
    mean = torch.stack(list(tables.values())).mean(dim=0)
    wanted = {
        "where": tables["relu4_1"][7],
        "mean": mean[7],
        "use": tables["relu4_1"][:, 9],
        "entropy": tensors["entropy.relu4_1"],
        "brightness": to_brightness(tables["relu4_1"][7].reshape(1, 12, 20)).flatten(),
    }
    assert answers["tabs"] == ["mean", *IMAGE_LEVELS]
    for name, tensor in wanted.items():
        torch.testing.assert_close(torch.tensor(answers[name]), tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_the_script_finds_the_strongest_places_and_the_points(answers: dict[str, Any]) -> None:
    """0.4 and 0.3 are the first to hold half of the sum."""
    assert answers["strongest"] == [3, 1]
    assert answers["index"] == [0, 7, 7, 2]
    assert answers["center"] == {"x": 0.625, "y": 0.75}
