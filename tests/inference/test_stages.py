"""The stages of a style transfer: together they are `stylize`, and parts of a batch give the same as the whole."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from adaattn_core import ModelConfig, StyleTransferModel, stylize
from adaattn_core.checkpoints.model_file import fingerprint
from adaattn_core.inference import batching
from adaattn_core.inference.batching import concat_batches, run_batched, slice_batch
from adaattn_core.inference.chunked import TransferOptions
from adaattn_core.inference.memory_budget import ChunkSizes
from adaattn_core.inference.stages import (
    ImageFeatures,
    ModelFingerprint,
    StylizedFeatures,
    check_decoder,
    check_origin,
    decode,
    encode_style_features,
    extract_features,
    transfer,
)
from adaattn_core.models.attention import stacked_key
from adaattn_core.models.encoder import ATTENTION_LEVELS
from adaattn_core.models.fusion import StyleFeatures
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
CONTENT, STYLE, OTHER = picture(37, 50), picture(45, 34, seed=1), picture(32, 48, seed=2)


def encoded(model: StyleTransferModel, style: Tensor) -> StyleFeatures:
    return encode_style_features(model.fusion, extract_features(model.encoder, style).as_dict())


def transferred(
    model: StyleTransferModel, content: ImageFeatures, styles: Sequence[StyleFeatures], **options: Any
) -> StylizedFeatures:
    return transfer(model.fusion, content.as_dict(), content.picture, styles, TransferOptions(**options))


def painted(
    model: StyleTransferModel, content: Tensor = CONTENT, style: Tensor = STYLE, **options: float
) -> StylizedFeatures:
    return transferred(model, extract_features(model.encoder, content), [encoded(model, style)], **options)


# ---------------------------------------------------------------- one after the other


@BOTH
def test_painting_leaves_features_and_style_as_they_were(config: ModelConfig) -> None:
    """Both lie on wires of a graph, where others read them."""
    model = small_model(config=config)
    features, style = extract_features(model.encoder, CONTENT, config.levels), encoded(model, STYLE)
    before = [one.clone() for one in (*features.levels, *(level.key for level in style.values()))]
    transferred(model, features, [style])
    for one, kept in zip((*features.levels, *(level.key for level in style.values())), before, strict=True):
        assert torch.equal(one, kept)


@BOTH
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keep_color", [False, True])
def test_the_steps_make_what_stylize_makes(
    config: ModelConfig, strength: float, masked: bool, keep_color: bool
) -> None:
    """Features of all levels, also those that the model does not read."""
    model = small_model(config=config)
    mask = torch.linspace(-0.3, 1.3, 50).clamp(0, 1).expand(1, 1, 37, 50) if masked else None
    painting = transferred(
        model,
        extract_features(model.encoder, CONTENT),
        [encoded(model, STYLE), encoded(model, OTHER)],
        weights=[0.75, 0.25],
        strength=strength,
    )
    result = decode(model.decoder, painting._replace(mask=mask), keep_color=keep_color)
    wanted = stylize(
        model, CONTENT, [STYLE, OTHER], style_weights=[3, 1], strength=strength, content_mask=mask,
        keep_color=keep_color,
    )  # fmt: skip
    torch.testing.assert_close(result, wanted, rtol=0, atol=1e-6)
    if mask is not None:
        outside = (mask == 0).expand_as(result)
        assert outside.any() and torch.equal(result[outside], CONTENT[outside])


def test_features_are_the_encoders_with_their_picture(model: StyleTransferModel) -> None:
    origin = ModelFingerprint("0123", "some")
    features = extract_features(model.encoder, 1.4 * CONTENT - 0.2, origin=origin)
    wanted = model.encoder((1.4 * CONTENT - 0.2).clamp(0, 1))
    for level in ATTENTION_LEVELS:
        assert_same(features.as_dict()[level], wanted[level])
        assert_same(stacked_key(features.as_dict(), level), stacked_key(wanted, level))
    assert torch.equal(features.picture, (1.4 * CONTENT - 0.2).clamp(0, 1)) and features.encoder == origin
    shallow = extract_features(model.encoder, features.picture, ["relu3_1"])
    assert_same(stacked_key(shallow.as_dict(), "relu3_1"), stacked_key(wanted, "relu3_1"))
    assert "relu4_1" not in shallow.names and len(shallow.names) == len(shallow.levels)


def test_no_step_changes_what_it_is_given(model: StyleTransferModel) -> None:
    content, style = extract_features(model.encoder, CONTENT), extract_features(model.encoder, STYLE)
    before = tree_map_only(Tensor, torch.clone, (content, style))
    styles = [encode_style_features(model.fusion, style.as_dict())]
    painting = transferred(model, content, styles, strength=0.5)
    kept = tree_map_only(Tensor, torch.clone, painting)
    decode(model.decoder, painting)
    torch.testing.assert_close((content.levels, style.levels), (before[0].levels, before[1].levels), rtol=0, atol=0)
    assert torch.equal(painting.fused.deep, kept.fused.deep) and torch.equal(painting.content, kept.content)
    assert painting.own is not None and kept.own is not None and torch.equal(painting.own.deep, kept.own.deep)


def test_another_picture_shows_where_nothing_is_painted(model: StyleTransferModel) -> None:
    mask = torch.zeros(1, 1, 37, 50)
    mask[..., 25:] = 1
    painting, ground = painted(model)._replace(mask=mask), picture(37, 50, seed=5)
    result = decode(model.decoder, painting, picture=ground)
    assert torch.equal(result[..., :25], ground[..., :25])
    assert torch.equal(result[..., 25:], decode(model.decoder, painting)[..., 25:])
    grey = decode(model.decoder, painting, picture=torch.full((1, 3, 37, 50), 0.5), keep_color=True)[..., 25:]
    torch.testing.assert_close(grey[:, 0], grey[:, 1], rtol=0, atol=2e-5)


# ---------------------------------------------------------------- pieces of a batch


def test_joined_parts_are_the_whole_batch(model: StyleTransferModel) -> None:
    features = extract_features(model.encoder, picture(37, 50, batch=3))
    parts = [slice_batch(features, items) for items in (slice(0, 1), slice(1, 3))]
    assert [len(part.picture) for part in parts] == [1, 2]
    whole = concat_batches(parts)
    assert isinstance(whole, ImageFeatures) and whole.encoder == features.encoder
    torch.testing.assert_close(whole.levels, features.levels, rtol=0, atol=0)
    assert concat_batches([features]) is features


def test_a_part_of_a_batch_keeps_what_all_items_share(model: StyleTransferModel) -> None:
    style = encoded(model, STYLE)
    part = slice_batch((style, None, "name", torch.zeros(4, 2)), slice(1, 3))
    assert torch.equal(part[0]["relu3_1"].key, style["relu3_1"].key)
    assert part[1:3] == (None, "name") and part[3].shape == (2, 2)


def test_a_batch_in_parts_is_stylized_as_the_whole(model: StyleTransferModel) -> None:
    content, style = extract_features(model.encoder, picture(37, 50, batch=3)), encoded(model, STYLE)
    whole = transferred(model, content, [style], strength=0.7)
    parts = [
        transferred(model, slice_batch(content, items), [style], strength=0.7) for items in (slice(0, 2), slice(2, 3))
    ]
    torch.testing.assert_close(concat_batches(parts).fused.deep, whole.fused.deep)
    one = slice_batch(whole, slice(1, 2))
    torch.testing.assert_close(decode(model.decoder, one), decode(model.decoder, whole)[1:2], rtol=0, atol=1e-6)


# ---------------------------------------------------------------- some items at a time


def log_of_batches(
    fails: Callable[[int, int], bool], batch: int = 6, side: int = 512, chunk_bytes: int = 2**22
) -> tuple[list[tuple[int, int, int]], list[float]]:
    """Batches tried as (start, stop, chunk bytes), and the values that the progress was called with."""
    tried: list[tuple[int, int, int]] = []
    shares: list[float] = []

    def run(items: slice, sizes: ChunkSizes, progress: Callable[[float], None] | None) -> tuple[int, int]:
        tried.append((items.start, items.stop, sizes.chunk_bytes))
        if fails(items.stop - items.start, sizes.chunk_bytes):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        assert progress is not None
        progress(0.5)
        return items.start, items.stop

    sizes = ChunkSizes(chunk_bytes=chunk_bytes)
    done = run_batched(run, torch.empty(batch, 3, side, side), sizes=sizes, progress=shares.append)
    assert [start for start, _ in done] == [0, *(stop for _, stop in done[:-1])] and done[-1][1] == batch
    return tried, shares


def test_as_many_items_run_together_as_have_two_million_pixels() -> None:
    tried, shares = log_of_batches(lambda items, chunk_bytes: False, batch=12)
    assert tried == [(0, 8, 2**22), (8, 12, 2**22)]
    assert shares == pytest.approx([4 / 12, 8 / 12, 10 / 12, 1])
    tried, _ = log_of_batches(lambda items, chunk_bytes: False, batch=2, side=2048)
    assert tried == [(0, 1, 2**22), (1, 2, 2**22)]


def test_out_of_memory_halves_the_batch_and_then_the_chunks() -> None:
    tried, shares = log_of_batches(lambda items, chunk_bytes: items > 1 or chunk_bytes > 2**20)
    assert [stop - start for start, stop, _ in tried[:3]] == [6, 3, 1]
    assert [chunk_bytes for _, _, chunk_bytes in tried[2:5]] == [2**22, 2**21, 2**20]
    assert tried[5:] == [(start, start + 1, 2**20) for start in range(1, 6)]  # what fits is kept for the rest
    assert shares[-1] == 1


def test_everything_is_halved_for_one_item_that_does_not_fit() -> None:
    halved = ChunkSizes(items=1).halved()
    assert halved == (2**22, 2**23, 2**12, 1)
    assert ChunkSizes(1, 2**18, 1).halved() == (1, 2**17, 1, None)


def test_out_of_memory_with_the_smallest_sizes_is_the_error() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        log_of_batches(lambda items, chunk_bytes: True)


def test_other_errors_are_not_tried_again() -> None:
    tried = []

    def run(items: slice, sizes: ChunkSizes, progress: object) -> None:
        tried.append(items)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run_batched(run, torch.empty(4, 3, 16, 16))
    assert len(tried) == 1


def test_stylize_survives_running_out_of_memory(model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch) -> None:
    content = picture(37, 50, batch=4)
    wanted = stylize(model, content, STYLE)
    sizes: list[int] = []
    merge = model.fusion.merge

    def narrow(features: dict[str, Tensor]) -> object:
        sizes.append(len(features["relu3_1"]))
        if sizes[-1] > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return merge(features)

    monkeypatch.setattr(model.fusion, "merge", narrow)
    torch.testing.assert_close(stylize(model, content, STYLE), wanted, rtol=0, atol=2e-5)
    assert sizes == [4, 2, 1, 1, 1, 1]


# ---------------------------------------------------------------- progress


def test_progress_rises_to_one(model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCH_PIXELS", 1)
    told: list[float] = []
    stylize(model, picture(37, 50, batch=3), [STYLE, OTHER], max_memory_gb=1e-6, progress=told.append)
    assert told == sorted(told) and told[0] > 0 and told[-1] == 1
    assert len(told) > 3 * 2 * 3  # more than once for each picture, style and level
    steps = [after - before for before, after in zip([0, *told], told, strict=False)]
    assert max(steps) < 0.25


def test_progress_stops_the_work(model: StyleTransferModel) -> None:
    class StopError(Exception):
        pass

    told = []

    def stop(done: float) -> None:
        told.append(done)
        raise StopError

    with pytest.raises(StopError):
        stylize(model, CONTENT, STYLE, progress=stop)
    assert len(told) == 1


# ---------------------------------------------------------------- what belongs together


def test_features_of_another_encoder_are_refused_by_name(model: StyleTransferModel) -> None:
    ours, theirs = (
        ModelFingerprint(fingerprint(small_model(seed).encoder), name) for seed, name in ((0, "mine"), (1, "yours"))
    )
    features = extract_features(model.encoder, CONTENT, origin=theirs)
    check_origin(features, ModelFingerprint(theirs.fingerprint, "the same under another name"), "mine", "content")
    text = (
        f"the content features come from the encoder yours ({theirs.fingerprint}), and the attention of mine reads "
        f"only those of its own encoder, mine ({ours.fingerprint}). "
        "Extract them with the encoder that was loaded with the attention."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_origin(features, ours, "mine", "content")


def test_a_decoder_of_another_model_is_refused(model: StyleTransferModel) -> None:
    painting = painted(model)._replace(attention=ModelFingerprint("01", "mine"))
    check_decoder(painting, ModelFingerprint("01", "a copy"))
    text = (
        "this was painted by the attention mine (01), and the decoder is that of yours (02). "
        "Use the decoder that was loaded with the attention."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_decoder(painting, ModelFingerprint("02", "yours"))


def test_a_model_and_its_file_have_one_fingerprint(model: StyleTransferModel) -> None:
    """Files hold float16."""
    halved = small_model().half().float()
    assert fingerprint(halved) == fingerprint(model)
    assert not torch.equal(halved.encoder.conv0.weight, model.encoder.conv0.weight)


ERRORS: dict[str, tuple[Callable[[StyleTransferModel], object], str]] = {
    "picture": (
        lambda m: extract_features(m.encoder, torch.full((1, 3, 16, 16), math.nan), role="image"),
        "the image holds NaN or infinite values; numbers in [0, 1] are needed",
    ),
    "strength": (lambda m: painted(m, strength=2.0), "strength is 2.0; it must be between 0 and 1"),
    "batch": (
        lambda m: painted(m, picture(16, 16, batch=3), picture(16, 16, batch=2)),
        "the style has 2 pictures and the content 3; give 1 style, or 3",
    ),
    "ground": (
        lambda m: decode(m.decoder, painted(m), picture=picture(50, 37)),
        "the content image is 1 picture of 37x50 pixels; the painting is 1 picture of 50x37 pixels. "
        "Give the content that was painted, or one picture of its size.",
    ),
    "grounds": (
        lambda m: decode(m.decoder, painted(m, picture(16, 16, batch=3)), picture=picture(16, 16, batch=2)),
        "the content image is 2 pictures of 16x16 pixels; the painting is 3 pictures of 16x16 pixels. "
        "Give the content that was painted, or one picture of its size.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(model: StyleTransferModel, name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(model)
