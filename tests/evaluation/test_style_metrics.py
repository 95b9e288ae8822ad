"""Patch distance, style spread and style retrieval against cases solved by hand, also after a run was resumed."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core.commands import evaluate as command
from adaattn_core.errors import CheckpointError
from adaattn_core.evaluation import metrics as metrics_module
from adaattn_core.evaluation.methods import ExistingImages, IdentityBaseline, Method, StyleCopyBaseline, choose_pairs
from adaattn_core.evaluation.metrics import patch_distance, style_retrieval, style_spread
from adaattn_core.evaluation.picture_statistics import (
    SHORT_SIDE,
    STATISTICS_LEVELS,
    decode_statistics,
    encode_statistics,
    reduce_picture,
)
from adaattn_core.evaluation.runner import Evaluation, Records
from adaattn_core.evaluation.summary import not_measured, summarize, table
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.runtime.progress import progress_bar
from tests.helpers.evaluation import narrow_suite, narrow_vgg19, write_pictures
from tests.helpers.small_models import picture


def random_features(height: int, width: int, seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 6, height, width, generator=torch.Generator().manual_seed(seed)).relu()


# ---------------------------------------------------------------- patch distance


def test_a_picture_has_no_patch_distance_from_itself() -> None:
    features = random_features(9, 7, seed=0, batch=2)
    assert patch_distance(features, features).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_patch_distance_of_two_positions_by_hand() -> None:
    """The style's channels are (0, 2) and (4, 0): means 1 and 2, deviations 1 and 2, so its two patches are (-1, 1) and
    (1, -1). The picture's (2, 4) and (2, 0) become (1, 1) and (1, -1): cosines 0 and 0, -1 and 1. The picture's patches
    are 1 - 0 and 1 - 1 away, and so are the style's: the mean is 1/2 in either direction."""
    style = torch.tensor([[[[0.0, 2.0]], [[4.0, 0.0]]]])
    stylized = torch.tensor([[[[2.0, 2.0]], [[4.0, 0.0]]]])
    assert patch_distance(stylized, style).item() == pytest.approx(0.5, abs=1e-6)


def test_patch_distance_counts_what_the_picture_lacks() -> None:
    """With (2, 0) at every position, normalised (1, -1), the picture's patches are in the style: distance 0. One patch
    of the style is opposite to all of the picture's, distance 2, the other has distance 0: (0 + (2 + 0) / 2) / 2."""
    style = torch.tensor([[[[0.0, 2.0]], [[4.0, 0.0]]]])
    stylized = torch.tensor([[[[2.0, 2.0, 2.0]], [[0.0, 0.0, 0.0]]]])
    assert patch_distance(stylized, style).item() == pytest.approx(0.5, abs=1e-6)


def test_patch_distance_does_not_know_where_patches_are() -> None:
    stylized, style = random_features(8, 8, seed=1), random_features(6, 10, seed=2)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    mixed = stylized.flatten(2)[..., order].reshape(1, 6, 4, 16)
    assert patch_distance(mixed, style).item() == pytest.approx(patch_distance(stylized, style).item(), abs=1e-6)


def test_patch_distance_is_symmetric_where_the_statistics_are_equal() -> None:
    """The style's statistics normalise both pictures; b is a with mirrored channels, so that a's are b's."""
    a = random_features(5, 5, seed=3)
    b = a.clone()
    b[:, 0] = a[:, 0].flip(-1)
    assert patch_distance(a, b).item() == pytest.approx(patch_distance(b, a).item(), abs=1e-6)
    assert patch_distance(a, b).item() > 0.01


@pytest.mark.parametrize("values", [1, 100, 1000])
def test_patch_distance_in_chunks_is_the_same(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stylized, style = random_features(7, 9, seed=4, batch=2), random_features(8, 5, seed=5, batch=2)
    whole = patch_distance(stylized, style)
    monkeypatch.setattr(metrics_module, "SIMILARITY_VALUES", values)
    assert torch.allclose(patch_distance(stylized, style), whole, atol=1e-6)
    assert whole[0] != whole[1]


def test_patch_distance_of_flat_pictures_is_finite() -> None:
    flat = torch.full((1, 6, 4, 4), 0.7)
    assert bool(patch_distance(random_features(4, 4, seed=6), flat).isfinite())
    assert bool(patch_distance(flat, random_features(4, 4, seed=6)).isfinite())


# ---------------------------------------------------------------- style spread

STYLES = {"x": torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), "y": torch.tensor([[0.0], [1.0], [3.0]])}
"""Three styles: 5, 10 and 5 apart at x, and 1, 3 and 2 at y (first to second, first to third, second to third)."""

SEA = torch.tensor([0, 0, 0])
EACH = torch.tensor([0, 1, 2])


def test_the_content_unchanged_has_no_spread() -> None:
    same = {level: values[:1].expand(3, -1) for level, values in STYLES.items()}
    assert style_spread(same, STYLES, SEA, EACH).tolist() == [0, 0, 0]


def test_the_styles_themselves_have_spread_1() -> None:
    assert style_spread(STYLES, STYLES, SEA, EACH).tolist() == pytest.approx([1, 1, 1])


def test_style_spread_by_hand() -> None:
    """At x the pictures are 1, 2 and 1 apart, .2 of the styles'; at y 1, 0 and 1, which is 1, 0 and .5 of the styles'.
    Averaged over levels .6, .1 and .35; each picture has the mean over its two partners."""
    pictures = {"x": torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), "y": torch.tensor([[0.0], [1.0], [0.0]])}
    expected = [(0.6 + 0.1) / 2, (0.6 + 0.35) / 2, (0.1 + 0.35) / 2]
    assert style_spread(pictures, STYLES, SEA, EACH).tolist() == pytest.approx(expected)


def test_a_picture_without_a_partner_has_no_spread() -> None:
    """The third picture has a content of its own; the fourth shares its content and its style with the third."""
    pictures = {level: values[[0, 1, 2, 1]] for level, values in STYLES.items()}
    spread = style_spread(pictures, STYLES, torch.tensor([7, 7, 3, 3]), torch.tensor([0, 1, 2, 2]))
    assert spread[:2].tolist() == pytest.approx([1, 1])
    assert spread[2:].isnan().all()


def test_two_equal_styles_are_no_partners() -> None:
    twice = {level: values[[0, 0, 1]] for level, values in STYLES.items()}
    pictures = {level: values[[0, 2, 1]] for level, values in STYLES.items()}
    spread = style_spread(pictures, twice, SEA, EACH)  # the first and second picture are 10 and 3 apart, the styles 0
    assert spread.tolist() == pytest.approx([1, (5 / 5 + 2 / 1) / 2, (1 + (5 / 5 + 2 / 1) / 2) / 2])


# ---------------------------------------------------------------- style retrieval


def test_retrieval_of_a_right_and_a_wrong_picture() -> None:
    """The mean norms of the styles are 5 at x and 4/3 at y. (3, 4), 1 is the second style itself; the second picture
    is 4/5 from the first style at x and 0 at y, 9/5 and 9/4 from the third, which would be its own."""
    pictures = {"x": torch.tensor([[3.0, 4.0], [4.0, 0.0]]), "y": torch.tensor([[1.0], [0.0]])}
    assert style_retrieval(pictures, STYLES, torch.tensor([1, 2])).tolist() == [1, 0]
    assert style_retrieval(pictures, STYLES, torch.tensor([0, 0])).tolist() == [0, 1]


def test_levels_count_relative_to_the_norms_of_the_styles() -> None:
    """4 from the first and 6 from the second style at x, 1 and 0 at y. Mean norms 5 and .5 make it .8 + 2 against
    1.2 + 0: the second is nearer, though 4 + 1 < 6 + 0."""
    styles = {"x": torch.tensor([[0.0], [10.0]]), "y": torch.tensor([[0.0], [1.0]])}
    pictures = {"x": torch.tensor([[4.0]]), "y": torch.tensor([[1.0]])}
    assert style_retrieval(pictures, styles, torch.tensor([1])).tolist() == [1]
    assert style_retrieval(pictures, styles, torch.tensor([0])).tolist() == [0]


def test_a_tie_counts_as_right() -> None:
    """Two files of one style cannot be told apart."""
    twice = {level: values[[1, 1, 0]] for level, values in STYLES.items()}
    pictures = {level: values[[1, 1]] for level, values in STYLES.items()}
    assert style_retrieval(pictures, twice, torch.tensor([0, 1])).tolist() == [1, 1]


def test_one_style_alone_cannot_be_retrieved() -> None:
    one = {level: values[:1] for level, values in STYLES.items()}
    assert style_retrieval(one, one, torch.tensor([0])).isnan().all()


# ---------------------------------------------------------------- records


def test_statistics_survive_their_text() -> None:
    suite = narrow_suite()
    statistics = [suite.style_statistics(suite.extract(picture(32, 40, seed=seed))).channels for seed in (0, 1)]
    network = suite.networks.vgg19_normalized
    assert network is not None
    decoded = decode_statistics([encode_statistics(one) for one in statistics], network.channels)
    assert list(decoded) == list(STATISTICS_LEVELS)
    for level, values in decoded.items():
        expected = torch.cat([one[level] for one in statistics])
        assert values.dtype == torch.float32 and values.shape == expected.shape
        assert torch.allclose(values, expected, rtol=2**-11, atol=2**-24)  # the rounding of float16


def test_text_of_the_full_network_takes_5_kb() -> None:
    widths = (64, 128, 256, 512)
    levels = zip(STATISTICS_LEVELS, widths, strict=True)
    assert len(encode_statistics({level: torch.ones(1, 2 * width) for level, width in levels})) < 5200


def test_pictures_are_reduced_but_never_enlarged() -> None:
    assert reduce_picture(torch.zeros(1, 3, 2 * SHORT_SIDE, 600)).shape == (1, 3, SHORT_SIDE, 300)
    small = torch.zeros(1, 3, 40, 600)
    assert reduce_picture(small) is small


@pytest.fixture
def folders(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    write_pictures(tmp_path / "c", ["sea", "hill"], seed=10)
    write_pictures(tmp_path / "s", ["ink", "oil"], seed=20)
    return [tmp_path / "c/sea.png", tmp_path / "c/hill.png"], [tmp_path / "s/ink.png", tmp_path / "s/oil.png"]


def evaluate(
    folders: tuple[Sequence[Path], Sequence[Path]], tmp_path: Path, methods: Sequence[Method], pairs: int | None = None
) -> Evaluation:
    chosen = choose_pairs(*folders, [method for method in methods if isinstance(method, ExistingImages)], pairs, 0)
    evaluation = Evaluation(narrow_suite(), methods, chosen, Records.open(tmp_path / "results.jsonl"))
    with progress_bar(len(chosen) * len(methods), unit="picture") as bar:
        evaluation.run(bar)
    return evaluation


REFERENCES = (IdentityBaseline(), StyleCopyBaseline())


def test_the_two_references_are_the_ends_of_every_style_metric(
    folders: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    """The styles have the size of the contents, so that the copied style is the style itself."""
    report = summarize(evaluate(folders, tmp_path, REFERENCES), 0, {}, {}, {})
    unchanged, copied = (subject["values"] for subject in report["subjects"])
    assert copied["patch_distance"]["mean"] == pytest.approx(0, abs=1e-5)
    assert unchanged["patch_distance"]["low"] > 0.01
    assert (unchanged["style_spread"]["mean"], unchanged["style_spread"]["high"]) == (0, 0)
    assert copied["style_spread"]["mean"] == pytest.approx(1)
    assert (unchanged["style_retrieval"]["mean"], copied["style_retrieval"]["mean"]) == (0.5, 1)
    won = report["subjects"][1]["to_first"]
    assert (won["patch_distance"]["won"], won["style_spread"]["won"], won["style_retrieval"]["won"]) == (1, 1, 0.5)


def test_style_metrics_are_the_first_columns(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    report = summarize(evaluate(folders, tmp_path, REFERENCES), 0, {}, {}, {})
    assert [metric["name"] for metric in report["metrics"]][:3] == ["patch_distance", "style_spread", "style_retrieval"]
    assert table(report).split("(VGG-19)")[:3] == [
        table(report).splitlines()[0].split("Patch")[0] + "Patch distance ", "  Style spread ", "  Style retrieval ",
    ]  # fmt: skip


def test_records_keep_the_statistics_of_pictures_and_styles(
    folders: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    first = summarize(evaluate(folders, tmp_path, REFERENCES), 0, {}, {}, {})
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 8 + 2 and all(json.loads(line)["statistics"] for line in lines)
    resumed = evaluate(folders, tmp_path, REFERENCES)
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines  # nothing was measured again
    assert summarize(resumed, 0, {}, {}, {}) == first


def test_a_lost_record_of_a_style_is_measured_again(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    first = summarize(evaluate(folders, tmp_path, REFERENCES), 0, {}, {}, {})
    path = tmp_path / "results.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in lines if not json.loads(line)["key"].startswith("style ")))
    assert summarize(evaluate(folders, tmp_path, REFERENCES), 0, {}, {}, {}) == first
    assert sorted(path.read_text().splitlines()) == sorted(lines)


def test_spread_without_partners_says_so(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    contents, styles = folders
    one_style = evaluate((contents, styles[:1]), tmp_path, REFERENCES)
    report = summarize(one_style, 0, {}, {}, {})
    assert json.loads(json.dumps(report)) == report
    assert "style_spread" not in report["subjects"][0]["values"]
    assert "not measured: Style spread (VGG-19) (it needs a content in two styles)" in not_measured(report)
    assert "not measured: Style retrieval (VGG-19) (it needs two styles)" in not_measured(report)
    assert "Style spread" not in table(report) and "Patch distance" in table(report)


def test_spread_over_some_of_the_pairs_says_so(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    """Three of four pairs: one content has two styles, the other one."""
    evaluation = evaluate(folders, tmp_path, REFERENCES, pairs=3)
    report = summarize(evaluation, 0, {}, {}, {})
    line = "Style spread (VGG-19) is measured on 2 of 3 pairs: it needs a content in two styles"
    assert line in not_measured(report)
    copied = report["subjects"][1]
    assert copied["values"]["style_spread"]["mean"] == pytest.approx(1)
    assert copied["to_first"]["style_spread"]["won"] == 1
    assert all(math.isfinite(value) for value in copied["values"]["style_spread"].values())
    assert len(report["pairs"]) == 3


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(("option", "source"), [([], "built-in"), (["--vgg", "vgg19.pth"], "vgg19.pth")])
def test_style_metrics_use_the_built_in_vgg19_whatever_vgg_says(
    option: list[str], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: dict[tuple[str, bool], VGGEncoder] = {}

    def load(source: str = "built-in", normalized: bool = False) -> VGGEncoder:
        return networks.setdefault((source, normalized), narrow_vgg19())

    def offline(device: torch.device) -> None:
        raise CheckpointError("not in a test")

    monkeypatch.setattr(command, "load_vgg", load)
    monkeypatch.setattr(command, "load_lpips_alex", offline)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    suite = command.load_metric_suite(parser.parse_args(["--content", "c", "--style", "s", "-o", "report", *option]))
    assert suite.networks.vgg19_normalized is networks["built-in", True]
    assert suite.networks.vgg19 is networks[source, False]
    assert len(networks) == 2
    assert {"patch_distance", "style_vgg19", "content"} <= set(suite.metrics)
    assert suite.relations == ["style_spread", "style_retrieval"]
