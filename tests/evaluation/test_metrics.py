"""Metrics against cases solved by hand, properties, and well-known libraries where they are installed."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaattn_core.evaluation.metrics import (
    STRUCTURE_POSITIONS,
    bootstrap_interval,
    channel_statistics,
    content_distance,
    gram_matrices,
    lpips_distance,
    relative_distance,
    ssim,
    statistics_distance,
    structure_distance,
)
from adaattn_core.evaluation.networks import LPIPS_LEVELS, VGG16
from adaattn_core.ops.color import color_distance, lab
from adaattn_core.runtime.memory import peak_memory_bytes
from tests.helpers.small_models import picture

Metric = Callable[[Tensor, Tensor], Tensor]

NARROW = (4, 6, 8, 10, 10)


@pytest.fixture(scope="module")
def vgg16() -> VGG16:
    """A narrow VGG-16 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VGG16(NARROW).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def heads() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {level: torch.rand(width, generator=generator) for level, width in zip(LPIPS_LEVELS, NARROW, strict=True)}


@pytest.fixture
def distances(vgg16: VGG16, heads: dict[str, Tensor]) -> dict[str, Metric]:
    """Every distance as a function of two pictures; 0 for equal ones."""
    levels = LPIPS_LEVELS
    return {
        "ssim": lambda a, b: 1 - ssim(a, b),
        "content": lambda a, b: content_distance(vgg16(a), vgg16(b), levels),
        "lpips": lambda a, b: lpips_distance(vgg16(a), vgg16(b), heads),
        # Random features are weak; those of torchvision's networks are about 3.
        "cfsd": lambda a, b: structure_distance(*(60 * vgg16(image)["relu3_1"] for image in (a, b))),
        "style": lambda a, b: statistics_distance(
            channel_statistics(vgg16(a), levels), channel_statistics(vgg16(b), levels)
        ),
        "gram": lambda a, b: statistics_distance(gram_matrices(vgg16(a), levels), gram_matrices(vgg16(b), levels)),
        "color": color_distance,
    }


NAMES = ("ssim", "content", "lpips", "cfsd", "style", "gram", "color")


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_of_a_picture_to_itself_is_zero(name: str, distances: dict[str, Metric]) -> None:
    image = picture(48, 64, batch=2)
    assert distances[name](image, image).abs().max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_more_noise_increases_the_distance(name: str, distances: dict[str, Metric]) -> None:
    image, generator = picture(64, 64), torch.Generator().manual_seed(3)
    noise = torch.randn(image.shape, generator=generator)
    values = [float(distances[name]((image + amount * noise).clamp(0, 1), image)) for amount in (0.02, 0.06, 0.18)]
    assert 0 < values[0] < values[1] < values[2]


@pytest.mark.parametrize("name", ["ssim", "content", "lpips", "cfsd", "style", "gram"])
def test_more_blur_increases_the_distance(name: str, distances: dict[str, Metric]) -> None:
    image = picture(64, 64)
    blurred = [F.avg_pool2d(image, size, stride=1, padding=size // 2, count_include_pad=False) for size in (3, 7, 15)]
    values = [float(distances[name](blur, image)) for blur in blurred]
    assert 0 < values[0] < values[1] < values[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_the_values_of_its_items(name: str, distances: dict[str, Metric]) -> None:
    a, b = picture(48, 48, batch=3, seed=1), picture(48, 48, batch=3, seed=2)
    together = distances[name](a, b)
    assert together.shape == (3,)
    apart = torch.cat([distances[name](a[i : i + 1], b[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- SSIM


def test_ssim_of_flat_greys() -> None:
    """No structure to compare: what is left is (2 a b + C1) / (a^2 + b^2 + C1)."""
    a, b = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.8)
    assert float(ssim(a, b)) == pytest.approx((2 * 0.2 * 0.8 + 1e-4) / (0.04 + 0.64 + 1e-4), abs=1e-6)


def test_ssim_of_the_negative_of_a_chessboard() -> None:
    """Brightness 1/2 in either, correlation -1, variance 1/4, of which C2 = 0.0009 takes next to nothing."""
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    board = board.float().expand(1, 3, 32, 32)
    assert float(ssim(1 - board, board)) == pytest.approx(-(0.5 - 0.0009) / (0.5 + 0.0009), abs=1e-4)


def test_ssim_equals_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="pip install scikit-image to compare with it")
    a, b = picture(40, 57, seed=1), 0.7 * picture(40, 57, seed=1) + 0.3 * picture(40, 57, seed=2)
    grey = [(x[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0).double().numpy() for x in (a, b)]
    theirs = metrics.structural_similarity(
        *grey, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert float(ssim(a, b)) == pytest.approx(theirs, abs=1e-5)


def test_ssim_needs_pictures_of_equal_size() -> None:
    with pytest.raises(ValueError, match="equal sizes are needed"):
        ssim(picture(32, 32), picture(32, 40))


# ---------------------------------------------------------------- distances of features


def test_content_distance_by_hand() -> None:
    """Normalised, the channel (0, 2) is (-1, 1). Mirrored it is sqrt(2 + 2) / 1 = 2 away; rescaled it has not moved."""
    content = {"relu4_1": torch.tensor([[[[0.0, 2.0]]]])}
    mirrored = {"relu4_1": torch.tensor([[[[2.0, 0.0]]]])}
    rescaled = {"relu4_1": torch.tensor([[[[5.0, 11.0]]]])}
    assert float(content_distance(mirrored, content, ["relu4_1"])) == pytest.approx(2)
    assert float(content_distance(rescaled, content, ["relu4_1"])) == pytest.approx(0, abs=1e-6)


def test_content_distance_of_uncorrelated_channels_is_root_two() -> None:
    a, b = ({"x": torch.tensor([[[values]]])} for values in ([-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]))
    assert float(content_distance(a, b, ["x"])) == pytest.approx(math.sqrt(2))


def test_content_distance_is_finite_with_a_constant_channel() -> None:
    content, stylized = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 2, 4, 4)
    content[:, 1] = 0
    assert bool(content_distance({"x": stylized}, {"x": content}, ["x"]).isfinite())


def test_channel_statistics_by_hand() -> None:
    found = channel_statistics({"x": torch.tensor([[[[0.0, 2.0]], [[3.0, 3.0]]]])}, ["x"])
    assert found["x"].tolist() == [[1.0, 3.0, 1.0, 0.0]]  # means, then deviations


def test_style_distance_by_hand() -> None:
    """(1, 1) against (2, 0): sqrt(1 + 1) / 2. Over two levels, one of them equal, half of it."""
    style = channel_statistics({"x": torch.full((1, 1, 2, 2), 2.0), "y": torch.ones(1, 1, 1, 1)}, ["x", "y"])
    stylized = channel_statistics({"x": torch.tensor([[[[0.0, 2.0]]]]), "y": torch.ones(1, 1, 3, 1)}, ["x", "y"])
    assert float(statistics_distance(stylized, style)) == pytest.approx(math.sqrt(2) / 2 / 2)


def test_gram_matrix_by_hand() -> None:
    found = gram_matrices({"x": torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]])}, ["x"])
    assert found["x"].tolist() == [[[1.0, 1.0], [1.0, 2.0]]]


def test_statistics_do_not_depend_on_positions(vgg16: VGG16) -> None:
    features = vgg16(picture(64, 64))["relu2_2"]
    mixed = features.flatten(2)[..., torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))]
    mixed = mixed.reshape(features.shape)
    for statistics in (channel_statistics, gram_matrices):
        found, wanted = statistics({"x": mixed}, ["x"]), statistics({"x": features}, ["x"])
        assert float(statistics_distance(found, wanted)) < 1e-5


def test_the_relative_distance_of_two_zero_vectors_is_zero() -> None:
    assert relative_distance(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0.0]
    assert relative_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist() == [1.0]


# ---------------------------------------------------------------- LPIPS and CFSD


def test_lpips_by_hand() -> None:
    """(3, 4) and (4, 3) normalised are (.6, .8) and (.8, .6): .04 in either channel, weighted 1 and 2."""
    image, reference = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.tensor([4.0, 3.0]).reshape(1, 2, 1, 1)
    found = lpips_distance({"x": image}, {"x": reference}, {"x": torch.tensor([1.0, 2.0])})
    assert float(found) == pytest.approx(0.12)


def test_lpips_equals_that_of_its_package() -> None:
    """The package's network with random weights, since the real ones are a download, and its real heads."""
    lpips = pytest.importorskip("lpips", reason="pip install lpips to compare with it")
    from adaattn_core.evaluation.networks import package_lpips_heads

    with torch.random.fork_rng(devices=[]), pytest.warns(UserWarning):
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    ours = VGG16().eval()
    convolutions = [module for module in theirs.net.modules() if isinstance(module, torch.nn.Conv2d)]
    for mine, other in zip(ours.layers.values(), convolutions, strict=True):
        mine.load_state_dict(other.state_dict())
    a, b = picture(40, 48, seed=1), picture(40, 48, seed=2)
    with torch.inference_mode():
        expected = float(theirs(a, b, normalize=True))
        assert float(lpips_distance(ours(a), ours(b), package_lpips_heads())) == pytest.approx(expected, rel=1e-4)


def test_cfsd_by_hand() -> None:
    """Content (0, 0): each of two positions resembles both alike. Stylised (0, 1): position 2 now has logits 0 and 1,
    probabilities 1/(1+e) and e/(1+e), and KL(1/2, 1/2 | those) = ln(1+e) - ln 2 - 1/2; position 1 has not moved."""
    content, stylized = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]])
    expected = (math.log(1 + math.e) - math.log(2) - 0.5) / 2 * STRUCTURE_POSITIONS
    assert float(structure_distance(stylized, content)) == pytest.approx(expected, rel=1e-5)


def test_cfsd_of_sampled_rows_approximates_that_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    content = 3 * torch.rand(1, 8, 48, 48, generator=generator)
    stylized = content + torch.rand(1, 8, 48, 48, generator=generator)
    sampled, exact = (float(structure_distance(stylized, content, rows)) for rows in (256, 48 * 48))
    assert sampled == pytest.approx(exact, rel=0.05)  # the mean of 256 of 2304 rows that differ by a quarter or so


# ---------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_well_known_colors(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    """Published values of sRGB's corners under D65."""
    found = lab(torch.tensor(rgb).reshape(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx(expected, abs=0.02)


def test_lab_equals_that_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="pip install scikit-image to compare with it")
    image = picture(16, 16)
    theirs = torch.from_numpy(color.rgb2lab(image[0].permute(1, 2, 0).double().numpy())).permute(2, 0, 1)
    assert (lab(image)[0] - theirs).abs().max() < 0.02


@pytest.mark.parametrize(
    ("a", "b", "delta_e"),
    [((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 100.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), 170.57)],
)
def test_color_distance_of_flat_pictures_is_their_delta_e(
    a: tuple[float, ...], b: tuple[float, ...], delta_e: float
) -> None:
    flat = [torch.tensor(rgb).reshape(1, 3, 1, 1).expand(1, 3, 20, 30) for rgb in (a, b)]
    assert float(color_distance(*flat)) == pytest.approx(delta_e, rel=0.02)  # 32 directions in place of all


def test_color_distance_does_not_depend_on_positions() -> None:
    image = picture(32, 32)
    mixed = image.flatten(2)[..., torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))]
    assert float(color_distance(mixed.reshape(image.shape), image)) == 0


def test_color_distance_of_pictures_of_other_sizes() -> None:
    """Each pixel four times, also where so many are thinned out, is the same palette."""
    image = picture(200, 200)
    larger = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert float(color_distance(larger, image)) < 0.3
    assert float(color_distance(larger, picture(200, 200, seed=5))) > 0.5


# ---------------------------------------------------------------- intervals


def test_interval_of_two_numbers_reaches_both() -> None:
    """The means of resamples of (0, 1) are 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4."""
    low, high = bootstrap_interval(torch.tensor([[0.0], [1.0]]), torch.Generator().manual_seed(0))
    assert (low.item(), high.item()) == (0.0, 1.0)


def test_interval_of_many_numbers_is_the_normal_one() -> None:
    values = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0])
    low, high = bootstrap_interval(values, torch.Generator().manual_seed(1))
    half = 1.96 * values.double().std(dim=0) / 20
    assert torch.allclose((high - low) / 2, half, rtol=0.1)
    assert torch.allclose((high + low) / 2, values.double().mean(dim=0), atol=0.1 * float(half.max()))


def test_interval_of_one_picture_is_its_number() -> None:
    low, high = bootstrap_interval(torch.tensor([[0.3, 7.0]]), torch.Generator().manual_seed(0))
    assert low.tolist() == high.tolist() == pytest.approx([0.3, 7.0])


def growth_of_intervals(pictures: int) -> float:
    """GiB by which the process grows with the intervals of four rows."""
    torch.set_num_threads(1)
    values = torch.rand(pictures, 8, generator=torch.Generator().manual_seed(0))
    bootstrap_interval(values, torch.Generator().manual_seed(0), resamples=2)
    before = peak_memory_bytes()
    for _ in range(4):
        bootstrap_interval(values, torch.Generator().manual_seed(0))
    return (peak_memory_bytes() - before) / 2**30


@pytest.mark.slow
def test_intervals_of_many_pictures_take_the_memory_of_one_resample() -> None:
    """That is 1 MB. With a small tensor kept of each resample the heap was broken up, and grew by .6 GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # a peak is one of a whole process
        assert pool.apply(growth_of_intervals, (10_000,)) < 0.1


def test_intervals_come_from_their_own_generator() -> None:
    values, before = torch.rand(20, 1, generator=torch.Generator().manual_seed(0)), torch.get_rng_state()
    first, second = (bootstrap_interval(values, torch.Generator().manual_seed(4), resamples=100) for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert torch.equal(torch.get_rng_state(), before)
