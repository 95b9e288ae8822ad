"""The methods of an evaluation: pairs, models, existing images, baselines and ablations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core.errors import ImageError
from adaattn_core.evaluation.methods import (
    MAX_PAIRS,
    IdentityBaseline,
    ModelMethod,
    Pair,
    Sources,
    StyleCopyBaseline,
    attending_at,
    choose_pairs,
    existing_images,
    load_reduced,
)
from adaattn_core.inference.stylize import stylize
from adaattn_core.io.images import load_image
from adaattn_core.models.config import COMPACT
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.evaluation import paths, write_pictures
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

CONTENTS, STYLES = paths(Path("c"), ["sea", "hill"]), paths(Path("s"), ["ink", "oil", "oil__2"])


# ---------------------------------------------------------------- pairs


def names_of(pairs: Sequence[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_each_content_with_each_style() -> None:
    pairs = choose_pairs(CONTENTS, STYLES, [], None, 0)
    assert names_of(pairs) == [f"{c}__{s}" for c in ("sea", "hill") for s in ("ink", "oil", "oil__2")]


def test_a_seeded_draw_of_pairs() -> None:
    first, again, other = (names_of(choose_pairs(CONTENTS, STYLES, [], 3, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 3
    assert first == sorted(first, key=names_of(choose_pairs(CONTENTS, STYLES, [], None, 0)).index)
    assert len(choose_pairs(CONTENTS, STYLES, [], 99, 0)) == 6


def test_drawing_from_very_many_pairs_does_not_list_them() -> None:
    """10^8 pairs, which a list of would take minutes and gigabytes."""
    many = paths(Path(), [f"picture{index}" for index in range(10_000)])
    assert len(choose_pairs(many, many, [], 5, 0)) == 5
    with pytest.raises(ImageError, match=rf"100000000 pairs came; at most {MAX_PAIRS} are allowed. Draw some of them"):
        choose_pairs(many, many, [], None, 0)


def test_pairs_that_every_folder_has(tmp_path: Path) -> None:
    one = existing_images(
        "one", write_pictures(tmp_path / "one", ["sea__ink", "sea__oil__2", "hill__oil", "lake__ink"])
    )
    two = existing_images("two", write_pictures(tmp_path / "two", ["hill__oil", "sea__oil__2", "notes"]))
    assert names_of(choose_pairs(CONTENTS, STYLES, [one, two], None, 0)) == ["sea__oil__2", "hill__oil"]
    assert names_of(choose_pairs(CONTENTS, STYLES, [two, one], 1, 0))[0] in ("sea__oil__2", "hill__oil")


def test_a_folder_without_a_pair(tmp_path: Path) -> None:
    one = existing_images("one", write_pictures(tmp_path / "one", ["sea__ink"]))
    other = existing_images("other", write_pictures(tmp_path / "other", ["hill__ink"]))
    odd = existing_images("odd", write_pictures(tmp_path / "odd", ["result1"]))
    with pytest.raises(ImageError) as error:
        choose_pairs(CONTENTS, STYLES, [odd], None, 0)
    assert str(error.value) == (
        "no pair is left with the 1 pictures of odd, such as result1: names like sea__ink are needed, of pairs that "
        "the other folders have too. Check names and folders."
    )
    with pytest.raises(ImageError, match="no pair is left with the 1 pictures of other, such as hill__ink"):
        choose_pairs(CONTENTS, STYLES, [one, other], None, 0)


def test_two_pictures_of_the_same_name_are_refused() -> None:
    twice = [Path("a/sea.png"), Path("b/sea.jpg")]
    with pytest.raises(ImageError, match="have the same name; pair names need different ones. Rename one."):
        choose_pairs(twice, STYLES, [], None, 0)


# ---------------------------------------------------------------- rows


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A 40x32 content, a 100x50 style."""
    write_pictures(tmp_path, ["sea"], seed=1)
    write_pictures(tmp_path, ["ink"], seed=2, size=(50, 100))
    return Pair(tmp_path / "sea.png", tmp_path / "ink.png")


@pytest.fixture
def sources(pair: Pair) -> Sources:
    return Sources(load_image(pair.content), load_image(pair.style))


def test_the_identity_baseline_is_the_content(pair: Pair, sources: Sources) -> None:
    assert IdentityBaseline().stylize(pair, sources).picture is sources.content


def test_the_style_copy_is_the_centre_of_the_style(pair: Pair, sources: Sources) -> None:
    """50 rows become 32, 100 columns 64, of which the middle 40 are left."""
    made = StyleCopyBaseline().stylize(pair, sources).picture
    assert made.shape == sources.content.shape
    ramp = torch.linspace(0, 1, 100).expand(1, 3, 50, 100)
    copied = StyleCopyBaseline().stylize(pair, Sources(sources.content, ramp)).picture
    assert torch.allclose(copied[0, 0, 0], torch.linspace(0, 1, 64)[12:52], atol=0.02)


def test_a_model_is_applied_with_its_options_and_timed(pair: Pair, sources: Sources) -> None:
    model = small_model()
    full = ModelMethod("full", model, "m", "digest")
    half = ModelMethod("half", model, "m", "digest", strength=0.5)
    none = ModelMethod("none", model, "m", "digest", strength=0.0)
    outputs = [method.stylize(pair, sources) for method in (none, half, full)]
    assert torch.equal(outputs[0].picture, sources.content)
    differences = [float((output.picture - sources.content).abs().mean()) for output in outputs]
    assert differences[0] == 0 < differences[1] < differences[2]
    assert all(output.seconds is not None and output.seconds > 0 for output in outputs[1:])
    assert full.identity(pair) != half.identity(pair)


def test_existing_pictures_are_resized_to_the_content(pair: Pair, sources: Sources, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "done", ["sea__ink"], size=(64, 80))
    made = existing_images("done", folder).stylize(pair, sources)
    assert made.picture.shape == sources.content.shape
    assert made.resized and made.seconds is None
    assert not existing_images("done", write_pictures(folder, ["sea__ink"])).stylize(pair, sources).resized


def test_large_sources_are_reduced(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["wide"], size=(40, 60))
    assert load_reduced(tmp_path / "wide.png", 20).shape == (1, 3, 20, 30)
    assert (
        load_reduced(tmp_path / "wide.png", 64).shape == load_reduced(tmp_path / "wide.png", 0).shape == (1, 3, 40, 60)
    )


# ---------------------------------------------------------------- ablations


CONTENT, STYLE = picture(48, 64, seed=1), picture(40, 56, seed=2)


def attend_at(model: StyleTransferModel, levels: tuple[str, ...], **options: float) -> Tensor:
    return stylize(attending_at(model, levels), CONTENT, STYLE, **options)  # type: ignore[arg-type]


def test_all_levels_are_the_model_itself() -> None:
    model = small_model()
    assert torch.equal(attend_at(model, SMALL.levels), stylize(model, CONTENT, STYLE))


def test_without_attention_the_model_is_adain() -> None:
    """At an infinite temperature, too, all style positions have equal weight."""
    model = small_model()
    torch.testing.assert_close(attend_at(model, ()), attend_at(model, SMALL.levels, temperature=1e9), rtol=0, atol=1e-4)
    assert float((attend_at(model, ()) - stylize(model, CONTENT, STYLE)).abs().max()) > 1e-2


def test_statistics_of_a_level_without_attention_are_those_of_the_style() -> None:
    model = attending_at(small_model(), ["relu3_1"])
    content, style = model.encode(CONTENT), model.encode(STYLE)
    levels = model.fusion.encode_style(style)
    found = model.fusion.statistics(content, [levels], [1.0])
    for level in ("relu4_1", "relu5_1"):
        value = levels[level].value
        mean, std = value.mean(dim=1)[..., None, None], value.std(dim=1, correction=0)[..., None, None]
        torch.testing.assert_close(found[level][0], mean.expand_as(found[level][0]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[level][1], std.expand_as(found[level][1]), rtol=1e-3, atol=1e-4)
    assert float(found["relu3_1"][0].std(dim=(2, 3)).max()) > 1e-3, "relu3_1 still attends"


def test_the_model_is_not_changed() -> None:
    model = small_model()
    before = stylize(model, CONTENT, STYLE)
    attending_at(model, ())
    assert torch.equal(stylize(model, CONTENT, STYLE), before)


def test_video_models_and_models_with_cells_work_without_attention() -> None:
    for config in (SMALL_VIDEO, COMPACT):
        model = small_model(config=config)
        found = attend_at(model, ())
        assert bool(found.isfinite().all())
        assert float((found - stylize(model, CONTENT, STYLE)).abs().max()) > 1e-4


def test_a_level_without_attention_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        attending_at(small_model(), ["relu2_1"])
    assert str(caught.value) == "levels has 'relu2_1'; this model attends at relu3_1, relu4_1, relu5_1 (or none)"
