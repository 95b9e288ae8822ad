"""The encoder and the decoder give the same result in row tiles as on the whole image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adaattn_core.models.attention import stacked_key
from adaattn_core.models.config import ModelConfig
from adaattn_core.models.encoder import LEVELS, resize_to_level
from adaattn_core.models.fusion import FusedFeatures
from adaattn_core.ops.tiling import RowTile, row_tiles, tile_rows
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

SMOOTH = replace(SMALL, upsample="bilinear")
CONFIGS = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO, SMOOTH], ids=["image", "video", "bilinear"])
SIZES = ((16, 16), (17, 63), (64, 33), (200, 16), (131, 77))
TILE_BYTES = (1, 20_000, 100_000, None)
"""Tiles of two rows, of a few, of many, and the default: the whole image at these sizes."""


def assert_same(actual: Tensor, expected: Tensor, case: str = "") -> None:
    """Equal up to float32 rounding: a convolution may sum in another order for another height."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5, msg=lambda message: f"{case}: {message}")


def decode_at_once(fused: FusedFeatures, config: ModelConfig, size: tuple[int, int]) -> Tensor:
    """The decoder on the whole image, as in training."""
    with torch.enable_grad():
        return small_model(config=config).decoder(fused, size)  # type: ignore[no-any-return]


@CONFIGS
def test_encoding_in_tiles_is_encoding_at_once(config: ModelConfig) -> None:
    model = small_model(config=config)
    for size in SIZES:
        images = picture(*size, batch=2)
        whole = model.encoder(images, model.deepest)
        for tile_bytes in TILE_BYTES:
            features = model.encoder.encode(images, config.levels, tile_bytes)
            for level in config.levels:
                case = f"{level} of {size}, {tile_bytes} bytes"
                assert_same(features[level], whole[level], case)
                assert_same(stacked_key(features, level), stacked_key(whole, level), case)


@CONFIGS
def test_decoding_in_tiles_is_decoding_at_once(config: ModelConfig) -> None:
    model = small_model(config=config)
    for size in SIZES:
        fused = model.fusion.merge(model.encode(picture(*size, batch=2)))
        whole = decode_at_once(fused, config, size)
        for tile_bytes in TILE_BYTES:
            assert_same(model.decoder.in_tiles(fused, size, tile_bytes), whole, f"{size}, {tile_bytes} bytes")


@pytest.mark.parametrize("config", [SMALL, SMOOTH], ids=["nearest", "bilinear"])
def test_a_halo_that_is_too_small_is_detected(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: with one row less of halo the difference is far above rounding."""

    def too_small(rows: int, height: int, halo: int) -> Any:
        return row_tiles(rows, height, halo - 1)

    model, images = small_model(config=config), picture(64, 48)
    whole = model.encoder(images)
    fused = model.fusion.merge(whole)
    for module in ("encoder", "decoder"):
        monkeypatch.setattr(f"adaattn_core.models.{module}.row_tiles", too_small)
    assert (model.encoder.encode(images, config.levels, 1)["relu5_1"] - whole["relu5_1"]).abs().max() > 1e-2
    assert (model.decoder.in_tiles(fused, (64, 48), 1) - decode_at_once(fused, config, (64, 48))).abs().max() > 1e-2


def test_encode_keeps_shallow_levels_on_the_grids_of_the_attention() -> None:
    features = small_model().encode(picture(64, 48))
    grids = {"relu3_1": (16, 12), "relu4_1": (8, 6), "relu5_1": (4, 3)}
    shallow = {f"{name}@{level}": (level, index) for index, name in enumerate(LEVELS[:2]) for level in grids}
    assert set(features) == {*grids, *shallow}
    for name, (level, index) in shallow.items():
        assert features[name].shape == (1, SMALL.channels[index], *grids[level])


@torch.no_grad()
def test_shallow_levels_on_a_grid_equal_those_resized_to_it() -> None:
    """At a size where resizing to nearest twice differs from resizing once."""
    model, images = small_model(), picture(83, 101)
    features, whole = model.encode(images), model.encoder(images)
    for name in LEVELS[:2]:
        for level in SMALL.levels:
            assert_same(resize_to_level(features, name, level), resize_to_level(whole, name, level))


def test_tiles_cover_the_grid() -> None:
    assert list(row_tiles(10, 4, 3)) == [RowTile(0, 4, 0, 7), RowTile(4, 8, 1, 10), RowTile(8, 10, 5, 10)]
    assert RowTile(4, 8, 1, 10).crop(torch.arange(1.0, 10)[None, None, :, None]).flatten().tolist() == [4, 5, 6, 7]


def test_tiles_use_the_given_memory_and_are_never_mostly_halo() -> None:
    row = torch.zeros(2, 3, 5, 100)  # 2 x 100 x 16 channels x 4 bytes: 12800 a row
    assert tile_rows(row, 16, 3, tile_bytes=12800 * 9) == 8
    assert tile_rows(row, 16, 3, tile_bytes=1) == 2
    assert tile_rows(row.bfloat16(), 16, 3, tile_bytes=12800 * 9) == 18
    assert tile_rows(row.expand(2, 3, 5, 100), 10**6, 3) == 48


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`numel` is the size of the largest tensor that an operation has returned."""

    numel = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


def test_tiles_bound_the_memory_of_encoding_and_decoding() -> None:
    """On the whole image the largest tensor is padded relu1_1 (6 channels); in tiles, a block's output at half size."""
    model, images = small_model(), picture(256, 64)
    with LargestTensor() as whole:  # type: ignore[no-untyped-call]
        fused = model.fusion.merge(model.encoder(images))
        decode_at_once(fused, SMALL, (256, 64))
    with LargestTensor() as tiled:  # type: ignore[no-untyped-call]
        model.encoder.encode(images, SMALL.levels, 1)
        model.decoder.in_tiles(fused, (256, 64), 1)
    assert whole.numel >= 6 * 256 * 64
    assert tiled.numel <= 3 * 256 * 64
