"""The host's default dtype changes nothing: results are float32 and the same, bit for bit."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, encode_style, load_image, load_mask, load_vgg, refine, save_image, stylize
from adaattn_core.commands.compare import comparison_sheet
from adaattn_core.inference.attention_map import attention_map, overlay_heatmap
from adaattn_core.inference.mixing import mix_paintings
from adaattn_core.inference.stages import decode, encode_style_features, extract_features, transfer
from adaattn_core.inference.temporal import TemporalSmoother
from adaattn_core.io.images import from_numpy, to_numpy
from adaattn_core.ops.color import color_distance
from adaattn_core.ops.masks import shape_mask
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_tiffs import REPORTS

ROOT = Path(__file__).parents[1]
CONTENT, STYLE, OTHER = picture(40, 56), picture(34, 48, seed=1), picture(32, 32, seed=2)
MASK = torch.linspace(0, 1, 56, dtype=torch.float32).expand(1, 1, 40, 56)
MODEL = small_model()


@pytest.fixture(params=[torch.float64, torch.float16, torch.bfloat16])
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The dtype to set, and the former one afterwards."""
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


def stages(model: StyleTransferModel) -> Tensor:
    content, style = (extract_features(model.encoder, one, model.config.levels) for one in (CONTENT, STYLE))
    encoded = encode_style_features(model.fusion, style.as_dict(), attention="sampled")
    painting = transfer(model.fusion, content.as_dict(), CONTENT, [encoded])
    mixed = mix_paintings([painting._replace(mask=MASK), painting], [1, 2], [None, 1 - MASK])
    return decode(model.decoder, mixed, keep_color=True)


def heat_map(model: StyleTransferModel) -> Tensor:
    content, style = (extract_features(model.encoder, one, model.config.levels) for one in (CONTENT, STYLE))
    weights = attention_map(model.fusion, content, style, (0.3, 0.6), model.config.levels[0])
    return overlay_heatmap(weights, STYLE)


def smoothed(model: StyleTransferModel) -> Tensor:
    smoother = TemporalSmoother(0.7)
    smoother(CONTENT, CONTENT)
    return smoother(CONTENT.roll(1, dims=-1), CONTENT)


CALLS: dict[str, Callable[[StyleTransferModel], Tensor]] = {
    "stylize": lambda m: stylize(m, CONTENT, [STYLE, OTHER], strength=0.5, content_mask=MASK, keep_color=True),
    "stylize in little memory": lambda m: stylize(m, CONTENT, STYLE, max_memory_gb=0.1),
    "encoded": lambda m: stylize(m, CONTENT, encode_style(m, STYLE, mask=torch.ones(34, 48, dtype=torch.bool))),
    "refine": lambda m: refine(CONTENT, CONTENT, STYLE, steps=1, strength=0.5, dtype=torch.float32),
    "stages": stages,
    "heat map": heat_map,
    "smoothed": smoothed,
    "sheet": lambda m: comparison_sheet(m, [OTHER], [OTHER]),
    "colours": lambda m: color_distance(CONTENT, STYLE),
    "vgg": lambda m: load_vgg()(OTHER)["relu1_1"],
    "mask": lambda m: shape_mask(MASK, threshold=0.5, feather=3),
    "picture file": lambda m: load_image(REPORTS / "white_is_zero16.tif"),
    "mask file": lambda m: load_mask(REPORTS / "mask01.png"),
    "arrays": lambda m: from_numpy(to_numpy(CONTENT)),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_float32(default: torch.dtype, name: str) -> None:
    torch.set_default_dtype(torch.float32)
    expected = CALLS[name](MODEL)
    torch.set_default_dtype(default)
    found = CALLS[name](MODEL)
    assert found.dtype == expected.dtype == torch.float32
    assert torch.equal(found, expected)


def test_pictures_are_written_alike(default: torch.dtype, tmp_path: Path) -> None:
    save_image(CONTENT, tmp_path / "a.png")
    torch.set_default_dtype(default)
    save_image(CONTENT, tmp_path / "b.png", alpha=None)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


FACTORIES = {"zeros", "ones", "empty", "full", "tensor", "eye", "rand", "randn", "linspace", "logspace"}


def untyped(source: str) -> list[str]:
    """Calls that make a tensor of the default dtype."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FACTORIES
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and not any(keyword.arg == "dtype" for keyword in node.keywords)
    ]


def test_every_new_tensor_names_its_dtype() -> None:
    assert untyped("torch.zeros(3)") and not untyped("torch.zeros(3, dtype=torch.float32); torch.arange(3)")
    found = {
        str(path.relative_to(ROOT)): calls
        for folder in ("adaattn_core", "nodes")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (calls := untyped(path.read_text(encoding="utf-8")))
    }
    assert not found
