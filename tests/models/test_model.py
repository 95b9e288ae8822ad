"""Encoder, attention, fusion, decoder and config: shapes, small cases by hand, and properties."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, autocast, nn

from adaattn_core.models.attention import AdaAttention, StyleKV, mask_on_grid, stacked_key
from adaattn_core.models.config import COMPACT, ModelConfig
from adaattn_core.models.decoder import Decoder
from adaattn_core.models.encoder import LEVELS, Features, ReflectConv2d, VGGEncoder, conv_names
from adaattn_core.models.fusion import FusedFeatures, MultiLevelFusion, upsample_to
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.statistics import channel_mean_std, normalize_channels
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(ours: Tensor, wanted: Tensor) -> None:
    """Equal up to float32 rounding: convolutions add up in another order for another batch or memory layout."""
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


# ---------------------------------------------------------------- encoder


def test_conv_names_are_vgg19s_up_to_conv5_1() -> None:
    assert " ".join(conv_names((2, 2, 4, 4, 1))) == (
        "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv3_4 conv4_1 conv4_2 conv4_3 conv4_4 conv5_1"
    )


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 32), (33, 64), (70, 19), (65, 31)])
def test_levels_have_rounded_up_sizes(height: int, width: int) -> None:
    features = small_model().encoder(picture(height, width))
    assert tuple(features) == LEVELS
    for index, level in enumerate(LEVELS):
        size = math.ceil(height / 2**index), math.ceil(width / 2**index)
        assert features[level].shape == (1, SMALL.channels[index], *size)
        assert features[level].min() >= 0


@pytest.mark.parametrize("deepest", LEVELS)
def test_the_encoder_stops_at_the_deepest_level(deepest: str) -> None:
    model, images = small_model(), picture(32, 24)
    before, full = images.clone(), model.encoder(images)
    shallow = model.encoder(images, deepest)
    assert tuple(shallow) == LEVELS[: LEVELS.index(deepest) + 1]
    assert all(torch.equal(shallow[level], full[level]) for level in shallow)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3, 16, 16), r"the picture has shape \(3, 16, 16\); \(batch, 3, height, width\) is needed"),
        ((1, 1, 16, 16), r"the picture has shape \(1, 1, 16, 16\); \(batch, 3, height, width\) is needed"),
        ((1, 3, 9, 12), r"the picture is 12x9 pixels; at least 16x16 are needed. Resize the picture first."),
        ((1, 3, 15, 99), r"the picture is 99x15 pixels; at least 16x16 are needed. Resize the picture first."),
    ],
)
def test_pictures_the_encoder_cannot_take(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        small_model().encoder(torch.zeros(shape))


@pytest.mark.parametrize(
    ("channels", "convs"), [((8,) * 4, (1,) * 5), ((8,) * 5, (1,) * 6), ((8,) * 5, (1, 1, 0, 1, 1))]
)
def test_an_encoder_has_five_blocks(channels: tuple[int, ...], convs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="^an encoder has five blocks; got channels .* and convs "):
        VGGEncoder(channels, convs)


def box_filter() -> ReflectConv2d:
    """One channel; adds up the 3x3 neighbourhood."""
    conv = ReflectConv2d(1, 1)
    nn.init.ones_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv.requires_grad_(False)


def test_convolutions_mirror_the_border() -> None:
    """Rows 1 2 3 and 4 5 6 become 5 4 5 6 5 / 2 1 2 3 2 / 5 4 5 6 5 / 2 1 2 3 2; the first sum is 14 + 5 + 14."""
    summed = box_filter()(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None])
    torch.testing.assert_close(summed, torch.tensor([[33.0, 36.0, 39.0], [24.0, 27.0, 30.0]])[None, None])


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), [[9.0]]), ((1, 2), [[15.0, 12.0]]), ((2, 1), [[15.0], [12.0]])]
)
def test_an_axis_of_one_position_is_repeated(size: tuple[int, int], expected: list[list[float]]) -> None:
    """1 2 mirrored is 2 1 2 1: sums 5 and 4, three times. One alone: 9."""
    values = torch.arange(1.0, size[0] * size[1] + 1).reshape(1, 1, *size)
    assert torch.equal(box_filter()(values), torch.tensor(expected)[None, None])


def test_autocast_pads_in_half_precision() -> None:
    """The padded copy of a bfloat16 tensor stays bfloat16; the result is that of a plain bfloat16 convolution."""
    conv, x = box_filter(), normals(1, 1, 5, 5).bfloat16()
    with autocast("cpu", torch.bfloat16):
        result = conv(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, conv.bfloat16()(x))


# ---------------------------------------------------------------- attention


def ramp_features() -> Features:
    """One channel a level, all of different values, for a picture of 16 x 32."""
    sizes = [(16 // 2**index, 32 // 2**index) for index in range(5)]
    return {level: torch.arange(1.0 * h * w).reshape(1, 1, h, w) for level, (h, w) in zip(LEVELS, sizes, strict=True)}


def test_stacked_key_by_hand() -> None:
    """On relu3_1's grid of 4 x 8, nearest takes relu1_1 at every fourth and relu2_1 at every second row and column."""
    features = ramp_features()
    key = stacked_key(features, "relu3_1")
    shallow, middle = features["relu1_1"][..., ::4, ::4], features["relu2_1"][..., ::2, ::2]
    wanted = torch.cat([normalize_channels(x) for x in (shallow, middle, features["relu3_1"])], dim=1)
    assert torch.equal(key, wanted)


def test_positions_mask_is_nearest_and_above_a_half() -> None:
    mask = torch.tensor([[0.2, 0.9, 0.6, 0.0], [1.0] * 4, [0.5, 1.0, 0.51, 1.0], [1.0] * 4])[None, None]
    assert mask_on_grid(mask, (2, 2)).tolist() == [[False, True, False, True]]


def test_a_mask_too_small_for_the_grid_keeps_the_positions_it_touches() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 17, 5] = 1  # nearest resizing to 2 x 2 looks at rows and columns 0 and 16 only
    assert mask_on_grid(mask, (2, 2)).tolist() == [[False, False, True, False], [False] * 4]


def seeded_attention(**options: Any) -> AdaAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AdaAttention(6, 4, 3, **options).requires_grad_(False)


def test_keys_and_values_are_projections_row_by_row() -> None:
    attention, key, value = seeded_attention(), normals(2, 6, 3, 5), normals(2, 4, 3, 5, seed=1)
    style = attention.encode_style(key, value)
    assert style.mask is None and style.key.shape == (2, 15, 3) and style.value.shape == (2, 15, 4)
    # Second row, third column: position 1 * 5 + 2.
    for found, conv, features in ((style.key, attention.key_proj, key), (style.value, attention.value_proj, value)):
        assert conv.bias is not None
        torch.testing.assert_close(found[:, 7], features[:, :, 1, 2] @ conv.weight[:, :, 0, 0].T + conv.bias)


def test_projections_are_as_wide_as_the_key_by_default() -> None:
    assert AdaAttention(6, 4).query_proj.weight.shape == (6, 6, 1, 1)


def test_initial_attention_is_scaled_dot_product_attention() -> None:
    """Logits q . k / sqrt(K) and values as they are, where nothing is projected to fewer channels."""
    with torch.random.fork_rng(devices=[]):
        attention = AdaAttention(9, 4).requires_grad_(False)
        attention.initialize()
    query, key, value = normals(1, 9, 3, 5), normals(1, 9, 3, 5, seed=1), normals(1, 4, 3, 5, seed=2)
    logits = torch.einsum("bkhw,bkhw->bhw", attention.query_proj(query), attention.key_proj(key))
    assert_same(logits, torch.einsum("bkhw,bkhw->bhw", query, key) / 3)
    assert_same(attention.value_proj(value), value)


def test_sampling_takes_whole_positions_by_the_generator() -> None:
    attention, key, value = seeded_attention(), normals(2, 6, 4, 5), normals(2, 4, 4, 5, seed=1)
    mask = (normals(2, 1, 4, 5, seed=2) > 0).float()
    whole = attention.encode_style(key, value, mask)
    some, again, other = (attention.encode_style(key, value, mask, 7, seeded(seed)) for seed in (0, 0, 1))
    assert some.key.shape == (2, 7, 3)
    chosen = [int((whole.key[0] - one).abs().sum(dim=1).argmin()) for one in some.key[0]]
    assert len(set(chosen)) == 7
    assert whole.mask is not None and some.mask is not None
    assert torch.equal(some.key, whole.key[:, chosen]) and torch.equal(some.value, whole.value[:, chosen])
    assert torch.equal(some.mask, whole.mask[:, chosen])
    assert torch.equal(some.key, again.key) and not torch.equal(some.key, other.key)


def test_sampling_as_many_as_there_are_keeps_all_in_order() -> None:
    attention, key, value = seeded_attention(), normals(1, 6, 4, 5), normals(1, 4, 4, 5, seed=1)
    assert torch.equal(attention.encode_style(key, value, None, 20).key, attention.encode_style(key, value).key)


@pytest.mark.parametrize("seed", range(5))
def test_sampling_never_misses_a_small_mask(seed: int) -> None:
    mask = torch.zeros(2, 1, 40, 50)
    mask[0, 0, 7, 9] = mask[1, 0, 30, 2] = 1
    style = seeded_attention().encode_style(normals(2, 6, 40, 50), normals(2, 4, 40, 50), mask, 5, seeded(seed))
    assert style.mask is not None and style.mask.sum(dim=1).tolist() == [1, 1] and style.key.shape == (2, 5, 3)


def test_sampling_needs_a_generator() -> None:
    text = "^sampled attention needs a torch.Generator, so that the same seed gives one picture$"
    with pytest.raises(ValueError, match=text):
        seeded_attention().encode_style(normals(1, 6, 4, 5), normals(1, 4, 4, 5), None, 7)


def test_attending_to_a_mask_is_attending_to_a_smaller_style() -> None:
    attention, content, key, value = seeded_attention(), normals(1, 6, 4, 4), normals(1, 6, 4, 5), normals(1, 4, 4, 5)
    mask = (normals(1, 1, 4, 5, seed=2) > 0).float()
    style = attention.encode_style(key, value, mask)
    assert style.mask is not None
    kept = style.mask[0]
    cut = StyleKV(style.key[:, kept], style.value[:, kept], None)
    query = attention.query(content)
    pairs = zip(*(attention.statistics(query, (4, 4), one) for one in (style, cut)), strict=True)
    for masked, smaller in pairs:
        assert_same(masked, smaller)


def test_outside_the_content_mask_the_whole_style_is_seen() -> None:
    attention, content, key, value = seeded_attention(), normals(1, 6, 4, 4), normals(1, 6, 4, 5), normals(1, 4, 4, 5)
    content_mask, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 5)
    content_mask[..., :4, :] = mask[..., :2] = 1
    style = attention.encode_style(key, value, mask)
    query = attention.query(content)
    mixed, _ = attention.statistics(query, (4, 4), style, content_mask=content_mask)
    inside, _ = attention.statistics(query, (4, 4), style)
    outside, _ = attention.statistics(query, (4, 4), style._replace(mask=None))
    assert torch.equal(mixed[..., :2, :], inside[..., :2, :])
    assert torch.equal(mixed[..., 2:, :], outside[..., 2:, :])


# ---------------------------------------------------------------- fusion


def test_statistics_of_several_styles_are_averaged() -> None:
    model = small_model()
    content = model.encoder(picture(32, 32))
    styles = [model.fusion.encode_style(model.encoder(picture(24, 40, seed=seed))) for seed in (1, 2)]
    alone = [model.fusion.statistics(content, [style], [1.0]) for style in styles]
    mixed = model.fusion.statistics(content, styles, [0.3, 0.7])
    for level in SMALL.levels:
        for moment, first, second in zip(mixed[level], alone[0][level], alone[1][level], strict=True):
            torch.testing.assert_close(moment, 0.3 * first + 0.7 * second)


def test_repaint_by_hand() -> None:
    """Content -1, 1 has unbiased variance 2: deviation 3 and mean 10 make 10 -+ 3 / sqrt 2; half strength, the mean."""
    fusion = small_model(config=SMALL_VIDEO).fusion
    own = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2)
    statistics = {"relu3_1": (torch.full_like(own, 10), torch.full_like(own, 3))}
    full = torch.tensor([10 - 3 / math.sqrt(2), 10 + 3 / math.sqrt(2)]).reshape(1, 1, 1, 2)
    for strength, wanted in ((1.0, full), (0.5, (own + full) / 2), (0.0, own)):
        painted = fusion.apply_statistics({"relu3_1": own}, statistics, strength)["relu3_1"]
        torch.testing.assert_close(painted, wanted, rtol=0, atol=2e-5)  # 1e-5 in the variance


def test_repainting_with_the_contents_own_statistics_gives_the_content() -> None:
    model = small_model()
    content = model.encoder(picture(32, 48))
    statistics = {level: channel_mean_std(content[level]) for level in SMALL.levels}
    for level, painted in model.fusion.apply_statistics(content, statistics).items():
        assert_same(painted, content[level])


def test_merge_adds_the_upsampled_deep_level() -> None:
    """Merge convolution replaced by the identity: relu4_1 of 3 x 3 plus relu5_1 of 2 x 2, doubled and cut."""
    fusion = small_model().fusion
    nn.init.dirac_(fusion.merge_conv.weight)
    assert fusion.merge_conv.bias is not None
    nn.init.zeros_(fusion.merge_conv.bias)
    painted = {"relu3_1": normals(1, 10, 5, 6), "relu4_1": normals(1, 12, 3, 3), "relu5_1": normals(1, 12, 2, 2)}
    fused = fusion.merge(painted)
    doubled = painted["relu5_1"][..., [0, 0, 1], :][..., [0, 0, 1]]
    torch.testing.assert_close(fused.deep, painted["relu4_1"] + doubled)
    assert fused.skip is painted["relu3_1"]


def test_a_one_level_model_has_nothing_to_merge() -> None:
    painted = {"relu3_1": normals(1, 10, 5, 6)}
    fused = small_model(config=SMALL_VIDEO).fusion.merge(painted)
    assert fused.deep is painted["relu3_1"] and fused.skip is None


def test_upsampling_doubles_and_cuts() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert upsample_to(x, (3, 4), "nearest").tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4]]]]
    # Bilinear, pixel centres: a quarter of the way from one value to the next.
    assert upsample_to(x, (1, 4), "bilinear").tolist() == [[[[1, 1.25, 1.75, 2]]]]


def test_sampled_levels_keep_16_times_as_many_positions_when_deeper() -> None:
    model = small_model()
    style = model.fusion.encode_style(model.encoder(picture(128, 64)), samples=5, generator=seeded())
    # Of 32 x 16, 16 x 8 and 8 x 4 positions.
    assert [style[level].key.shape[1] for level in SMALL.levels] == [5, 80, 32]


# ---------------------------------------------------------------- decoder


def passing_decoder(upsample: str, skip: bool) -> Decoder:
    """Every convolution copies its first inputs; the last makes grey of the first channel."""
    decoder = Decoder((3, 3, 3, 3, 3), (1, 1, 1), skip, upsample)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return decoder.requires_grad_(False)


def test_decoder_by_hand() -> None:
    """Copying convolutions leave the upsampling: each relu4_1 position becomes 8 x 8 pixels, cut at the border.

    Values below 0 end at the first ReLU; the skip comes after the upsampled channels and is dropped by the copies.
    """
    deep = normals(1, 3, 2, 3)
    painted = passing_decoder("nearest", skip=True)(FusedFeatures(deep, torch.full((1, 3, 3, 5), 9.0)), (11, 18))
    wanted = deep.relu().repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :11, :18]
    assert torch.equal(painted, wanted)


def test_one_level_decoder_by_hand() -> None:
    deep = normals(1, 3, 3, 2).abs()
    painted = passing_decoder("nearest", skip=False)(FusedFeatures(deep, None), (10, 7))
    assert torch.equal(painted, deep.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)[..., :10, :7])


def test_the_last_convolution_is_linear() -> None:
    decoder = passing_decoder("nearest", skip=False)
    last = [module for module in decoder.modules() if isinstance(module, nn.Conv2d)][-1]
    last.weight.neg_()
    assert decoder(FusedFeatures(torch.ones(1, 3, 4, 4), None), (16, 16)).eq(-1).all()


def test_decoder_upsampling_is_as_asked() -> None:
    deep = normals(1, 3, 4, 4).abs()
    painted = passing_decoder("bilinear", skip=False)(FusedFeatures(deep, None), (16, 16))
    twice = F.interpolate(F.interpolate(deep, scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(painted, twice)


@pytest.mark.parametrize("convs", [(1, 1), (1, 0, 1), (1, 1, 1, 1)])
def test_a_decoder_has_three_blocks(convs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^a decoder has three blocks; got convs \({convs[0]}, .*\)$"):
        Decoder((3,) * 5, convs)


# ---------------------------------------------------------------- the whole model


@BOTH
def test_every_size_comes_back(config: ModelConfig) -> None:
    """Heights with every remainder of 16 against changing widths and style sizes: even, odd, square, wide and tall."""
    model = small_model(config=config)
    for height in (*range(16, 32), 49, 62, 70):
        width, style_height, style_width = (16 + (height * step) % 55 for step in (7, 13, 29))
        painted = model(picture(height, width), picture(style_height, style_width, seed=1))
        assert painted.shape == (1, 3, height, width), f"{width}x{height} became {tuple(painted.shape)}"
        assert painted.isfinite().all(), f"{width}x{height} with {style_width}x{style_height} has NaN"


@BOTH
@pytest.mark.parametrize(("content", "style"), [((16, 400), (300, 16)), ((333, 17), (16, 16)), ((16, 16), (17, 401))])
def test_extreme_aspects_come_back(config: ModelConfig, content: tuple[int, int], style: tuple[int, int]) -> None:
    painted = small_model(config=config)(picture(*content), picture(*style, seed=1))
    assert painted.shape[-2:] == content and painted.isfinite().all()


@BOTH
def test_a_batch_is_its_items(config: ModelConfig) -> None:
    model, content, style = small_model(config=config), picture(37, 50, batch=3), picture(45, 33, batch=3, seed=1)
    whole = model(content, style)
    assert not torch.allclose(whole[0], whole[1], atol=0.01)
    for index in range(3):
        assert_same(whole[index : index + 1], model(content[index : index + 1], style[index : index + 1]))


@BOTH
def test_the_style_matters_and_its_arrangement_by_position_does_not_come_through(config: ModelConfig) -> None:
    """Attention sees a set of positions: a style mirrored by whole positions of every level is another set only
    through the borders of its convolutions; styles of one colour have one position, whatever their size."""
    model, content = small_model(config=config), picture(32, 40)
    flat = torch.tensor([0.9, 0.2, 0.4])[None, :, None, None]
    small, large = model(content, flat.expand(1, 3, 16, 16)), model(content, flat.expand(1, 3, 50, 33))
    assert_same(small, large)
    assert (model(content, picture(32, 40, seed=5)) - small).abs().max() > 0.02


@BOTH
def test_every_parameter_that_is_read_gets_a_gradient(config: ModelConfig) -> None:
    model = small_model(config=config).requires_grad_(True)
    model(picture(48, 40), picture(40, 48, seed=1)).square().mean().backward()
    # The video model stops at relu3_1; a softmax does not see what is added to all its logits.
    unread = ("encoder.layers.conv3_2", "encoder.layers.conv4", "encoder.layers.conv5") if config is SMALL_VIDEO else ()
    for name, parameter in model.named_parameters():
        if name.startswith(unread):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("key_proj.bias"), name


def test_the_model_computes_in_float64_too() -> None:
    model, content, style = small_model(), picture(32, 40), picture(40, 32, seed=1)
    wanted = model(content, style)
    exact = model.double()(content.double(), style.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(wanted.double(), exact, rtol=0, atol=1e-4)  # the root near variance 0 amplifies


def test_deepest_level() -> None:
    assert small_model().deepest == "relu5_1"
    assert small_model(config=SMALL_VIDEO).deepest == "relu3_1"


def test_initialize_reaches_every_level() -> None:
    with torch.random.fork_rng(devices=[]):
        fusion = MultiLevelFusion(SMALL.channels, SMALL.levels)
        fusion.initialize()
    for attention in map(fusion.level_attention, fusion.levels):
        assert torch.equal(attention.query_proj.weight, attention.key_proj.weight)


# ---------------------------------------------------------------- config


@pytest.mark.parametrize("config", [ModelConfig(), COMPACT, SMALL, SMALL_VIDEO])
def test_config_round_trip_through_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_published_sizes() -> None:
    """Parameters in millions as counted in the published files: encoder, adaattn_3, transformer, decoder."""
    with torch.device("meta"):
        model = StyleTransferModel(ModelConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    shallow = sum(p.numel() for p in model.fusion.attention["relu3_1"].parameters())
    in_millions = [round(count / 1e6, 2) for count in
                   (counts["encoder"], shallow, counts["fusion"] - shallow, counts["decoder"])]  # fmt: skip
    assert in_millions == [12.94, 0.47, 9.07, 4.10]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"levels": ("relu4_1",)}, r"levels are \('relu4_1',\); known are \('relu3_1', .*\) and \('relu3_1',\)"),
        ({"similarity": "dot"}, "similarity is 'dot'; known are softmax, cosine"),
        ({"upsample": "cubic"}, "upsample is 'cubic'; known are nearest, bilinear"),
        ({"projection_channels": (8,)}, r"projection_channels \(8,\) need one number for each of \('relu3_1', .*"),
        ({"logit_scale": 0.0}, r"logit_scale is 0.0; above 0 and at most 80.0 is needed"),
        ({"logit_scale": 100.0}, r"logit_scale is 100.0; above 0 and at most 80.0 is needed"),
        ({"logit_scale": 8.0, "similarity": "cosine"}, r"logit_scale needs similarity softmax; it is cosine"),
        ({"style_cells": (2,)}, r"style_cells is \(2,\); a number above 0 is needed for each of \('relu3_1', .*"),
        ({"style_cells": (2, 1, 0)}, r"style_cells is .*; a number above 0 is needed for each of \('relu3_1', .*"),
        ({"channels": (8, 8)}, r"channels is \(8, 8\); 5 numbers above 0 are needed, one for each block"),
        ({"encoder_convs": (1, 1, 1, 1, 0)}, r"encoder_convs is .*; 5 numbers above 0 are needed, one for each block"),
        ({"decoder_convs": (1, 1, 1, 1)}, r"decoder_convs is .*; 3 numbers above 0 are needed, one for each block"),
        ({"channels": (8, 8, 8, 8, 9)}, r"channels is .*; the last two must be equal, since these levels are added"),
    ],
)
def test_configs_that_make_no_model(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        ModelConfig(**values)


def test_a_setting_of_a_newer_library_is_an_error() -> None:
    text = "^unknown model settings depth, heads; the file is newer than this library$"
    with pytest.raises(ValueError, match=text):
        ModelConfig.from_dict({"heads": 8, "depth": 2, "levels": ["relu3_1"]})
