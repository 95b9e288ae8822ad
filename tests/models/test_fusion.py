"""Fusion of the levels: statistics of several styles, their application to the content, and the merge, by hand."""

from __future__ import annotations

import math

import torch
from torch import nn

from adaattn_core.models.fusion import upsample_to
from adaattn_core.ops.statistics import channel_mean_std
from tests.helpers.comparison import assert_same
from tests.helpers.random_tensors import normals, seeded
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model


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
        assert_same(painted, content[level], 1e-5)


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
