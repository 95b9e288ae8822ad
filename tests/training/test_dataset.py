"""Training pictures: what is drawn, where it is cut, and what becomes of files that are odd or broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adaattn_core.errors import DataError, ImageError
from adaattn_core.io import decoding
from adaattn_core.io.picture_sources import list_pictures
from adaattn_core.runtime.remarks import FileNote
from adaattn_core.training.dataset import (
    Batch,
    PairSchedule,
    Sample,
    TrainingPairs,
    collate,
    color_jitter,
    damaged,
    random_crop,
    read_picture,
    reconstruction_pair,
)
from tests.helpers.tiny_tiffs import REPORTS

CROP = 32


def gradient(width: int, height: int) -> Image.Image:
    """A picture that says where it was cut: red is the column, green the row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8))


def region(crop: Tensor) -> tuple[float, float, float, float]:
    """left, top, right, bottom of a crop of `gradient`, in pixel centres."""
    (left, top), (right, bottom) = (255 * crop[:2]).amin((1, 2)).tolist(), (255 * crop[:2]).amax((1, 2)).tolist()
    return left, top, right, bottom


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(path: Path, width: int = 48, height: int = 40, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A content folder and a style folder of three pictures each."""
    content, style = tmp_path / "content", tmp_path / "style"
    for number, folder in enumerate((content, style)):
        folder.mkdir()
        for index in range(3):
            noise(folder / f"{index}.png", seed=10 * number + index)
    return content, style


def make_pairs(folders: tuple[Path, Path], seed: int = 0, batch: int = 4, n_self_pairs: int = 1) -> TrainingPairs:
    """40 pairs, the first 8 of them self pairs."""
    content, style = folders
    schedule = PairSchedule(length=40, batch=batch, n_self_pairs=n_self_pairs, self_pairs_until=8)
    return TrainingPairs(content, style, schedule, crop=CROP, seed=seed)


def is_equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True)) and one.notes == other.notes


# ---------------------------------------------------------------- what is drawn


def test_an_item_depends_on_the_seed_and_its_index_alone(folders: tuple[Path, Path]) -> None:
    pairs, state = make_pairs(folders), torch.get_rng_state()
    forward = [pairs[index] for index in range(len(pairs))]
    again = make_pairs(folders)
    assert all(is_equal(again[index], forward[index]) for index in reversed(range(40)))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert not any(is_equal(make_pairs(folders, seed=1)[index], forward[index]) for index in range(40))
    assert len({sample.content.numpy().tobytes() for sample in forward}) == 40


def test_which_items_are_self_pairs(folders: tuple[Path, Path]) -> None:
    pairs = make_pairs(folders)
    for index in range(40):
        sample = pairs[index]
        has_other_colors = not torch.equal(sample.content, sample.target)
        assert has_other_colors == sample.is_self_pair == (index < 8 or index % 4 == 0), index
    assert not torch.equal(
        make_pairs(folders, n_self_pairs=4)[39].content, make_pairs(folders, n_self_pairs=4)[39].target
    )


def test_crops_are_float32_in_0_to_1(folders: tuple[Path, Path]) -> None:
    for index in range(20):
        for crop in make_pairs(folders)[index][:3]:
            assert isinstance(crop, Tensor) and crop.shape == (3, CROP, CROP) and crop.dtype == torch.float32
            assert float(crop.min()) >= 0 and float(crop.max()) <= 1


def test_collate_stacks_and_keeps_all_names() -> None:
    crops = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 3, 2, 2)
    a, b = FileNote("a", "is damaged", is_unreadable=True), FileNote("b", "no profile")
    batch = collate(
        [Sample(crops[0], crops[1], crops[2], True, (a,)), Sample(crops[3], crops[4], crops[5], False, (b, a))]
    )
    assert batch.n_self_pairs == 1
    assert isinstance(batch, Batch) and batch.notes == (a, b, a)
    assert torch.equal(batch.style, torch.stack([crops[1], crops[4]]))


# ---------------------------------------------------------------- where it is cut


def test_a_self_pairs_style_surrounds_its_target() -> None:
    picture = gradient(200, 150)
    widest = 0.0
    for seed in range(100):
        content, style, target = reconstruction_pair(picture, CROP, generator(seed))
        assert content.shape == style.shape == target.shape == (3, CROP, CROP)
        left, top, right, bottom = region(target)
        style_left, style_top, style_right, style_bottom = region(style)
        slack = 1.0  # a resized crop's outer samples lie up to half a source pixel inside; 8-bit rounding
        assert style_left <= left + slack and style_top <= top + slack, f"seed {seed}"
        assert style_right >= right - slack and style_bottom >= bottom - slack, f"seed {seed}"
        assert 0.9 * CROP <= right - left + 1 <= 1.65 * CROP
        widest = max(widest, (style_right - style_left) / (right - left))
        assert bool((target[0].diff(dim=1) >= 0).all() and (target[1].diff(dim=0) >= 0).all()), "the target is turned"
    assert 1.2 < widest < 1.45


def test_a_self_pairs_style_is_turned_and_mirrored_in_all_eight_ways() -> None:
    ways = set()
    for seed in range(100):
        style = reconstruction_pair(gradient(200, 150), CROP, generator(seed))[1]
        across, down = style.diff(dim=2).mean((1, 2)), style.diff(dim=1).mean((1, 2))
        ways.add(tuple(torch.cat([across[:2], down[:2]]).div(1e-3).round().sign().tolist()))
    assert len(ways) == 8


def test_a_crop_is_never_enlarged_where_the_picture_is_large_enough() -> None:
    for seed in range(50):
        crop = random_crop(gradient(100, 90), CROP, (1.0, 2.0), generator(seed))
        left, top, right, bottom = region(crop)
        side = right - left + 1
        assert 0.95 * CROP <= side <= 2.05 * CROP and abs(side - (bottom - top + 1)) <= 2


def test_a_small_picture_gives_its_whole_short_side() -> None:
    for seed in range(10):
        left, top, right, bottom = region(random_crop(gradient(40, 20), CROP, (1.0, 2.0), generator(seed)))
        assert top <= 0.5 and bottom >= 18.5 and 18 <= right - left + 1 <= 21


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2), (31, 33), (32, 32)])
def test_pictures_of_any_size_give_crops(size: tuple[int, int], tmp_path: Path) -> None:
    gradient(*size).save(tmp_path / "odd.png")
    pairs = make_pairs((tmp_path, tmp_path))
    for index in (0, 7, 9, 10):
        assert all(x.shape == (3, CROP, CROP) and bool(x.isfinite().all()) for x in pairs[index][:3])


def test_jitter_changes_colours_and_keeps_structure() -> None:
    image = torch.rand(3, 8, 8, generator=generator(0))
    flat = torch.full((3, 8, 8), 0.4)
    for seed in range(20):
        changed = color_jitter(image, generator(seed))
        assert float(changed.min()) >= 0 and float(changed.max()) <= 1
        assert not torch.equal(changed, image)
        still_flat = color_jitter(flat, generator(seed))
        assert torch.equal(still_flat, still_flat[:, :1, :1].expand_as(flat)), "a flat picture got a structure"


# ---------------------------------------------------------------- files


def test_a_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 1200), (200, 100, 50)).save(tmp_path / "large.jpg")
    picture = read_picture(tmp_path / "large.jpg", CROP)
    assert picture.size == (200, 150)  # an eighth, JPEG's smallest; still 4 crops on the short side
    assert picture.getpixel((9, 9)) == pytest.approx((200, 100, 50), abs=3)  # JPEG's own loss


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    gradient(20, 10).save(tmp_path / "small.png")
    assert read_picture(tmp_path / "small.png", CROP).size == (20, 10)


def kinds() -> dict[str, tuple[Image.Image, str, tuple[int, int, int]]]:
    """A picture of each kind, the suffix it is saved under, and the RGB it should be read as."""
    size = (40, 40)
    palette = Image.new("P", size, 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = b"\xff\xff"
    return {
        "grey": (Image.new("L", size, 77), "png", (77, 77, 77)),
        "bilevel": (Image.new("1", size, 1), "png", (255, 255, 255)),
        "16-bit grey": (Image.fromarray(np.full(size, 257 * 77, np.uint16)), "png", (77, 77, 77)),
        "float grey": (Image.fromarray(np.full(size, 0.2, np.float32)), "tif", (51, 51, 51)),
        "transparent": (Image.new("RGBA", size, (9, 9, 9, 0)), "png", (255, 255, 255)),
        "half grey": (Image.new("LA", size, (0, 51)), "png", (204, 204, 204)),
        "palette": (palette, "png", (10, 20, 30)),
        "cmyk": (Image.new("CMYK", size, (0, 255, 255, 0)), "jpg", (255, 0, 0)),
        "rgb": (Image.new("RGB", size, (10, 20, 30)), "webp", (10, 20, 30)),
    }


@pytest.mark.parametrize("kind", kinds())
def test_pictures_of_every_kind_are_read_as_rgb(kind: str, tmp_path: Path) -> None:
    picture, suffix, expected = kinds()[kind]
    picture.save(tmp_path / f"it.{suffix}")
    found = read_picture(tmp_path / f"it.{suffix}", CROP)
    assert found.mode == "RGB" and found.size == (40, 40)
    assert found.getpixel((5, 5)) == pytest.approx(expected, abs=2)  # JPEG and WebP are lossy


def test_an_exif_orientation_does_no_harm(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(40, 60).save(tmp_path / "turned.jpg", exif=exif)
    assert min(read_picture(tmp_path / "turned.jpg", CROP).size) == 40


def test_broken_files_are_passed_over_and_named(folders: tuple[Path, Path]) -> None:
    content, _ = folders
    whole = (content / "0.png").read_bytes()
    broken = {"cut.png": whole[: len(whole) // 2], "text.jpg": b"not a picture", "empty.png": b""}
    for name, data in broken.items():
        (content / name).write_bytes(data)
    named = {name for index in range(40) for name in make_pairs(folders)[index].unreadable}
    assert named == {str(content / name) for name in broken}


def test_large_pictures_have_the_limit_of_the_library(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(folders[0] / "0.png", 100, 100)  # 10,000 pixels, the others have 1920
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # Pillow's own limit would refuse it
    assert not any(make_pairs(folders)[index].unreadable for index in range(40))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9999)
    notes = {note for index in range(40) for note in make_pairs(folders)[index].notes}
    reason = "is 100x100 pixels; at most 0 million pixels are read. Resize it first."
    assert notes == {FileNote(str(folders[0] / "0.png"), reason, is_unreadable=True)}


def test_a_raw_file_is_no_training_picture(folders: tuple[Path, Path]) -> None:
    shutil.copy(REPORTS / "camera.dng", folders[0] / "0.png")
    named = {name for index in range(40) for name in make_pairs(folders)[index].unreadable}
    assert named == {str(folders[0] / "0.png")}


def test_nothing_but_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        make_pairs((tmp_path, tmp_path))[0]
    assert str(caught.value) == (
        f"100 pictures in a row cannot be read, the last is {tmp_path / 'text.jpg'}: it is not a picture that can be "
        "read (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF). Convert it to PNG first. "
        "Check the training folders."
    )


def test_a_list_names_pictures(folders: tuple[Path, Path], tmp_path: Path) -> None:
    content, style = folders
    lines = ["content/1.png", "", f"  {style / '0.png'}  ", "content/1.png", "content/none.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8-sig")  # as Windows' editor saves it
    paths = list_pictures(tmp_path / "list.txt")
    assert paths == [content / "1.png", style / "0.png", content / "1.png", content / "none.png"]
    pairs = make_pairs((tmp_path / "list.txt", style))
    assert {name for index in range(40) for name in pairs[index].unreadable} == {str(content / "none.png")}


def test_a_list_of_a_folder_is_the_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    listed = []
    for folder in folders:
        file = tmp_path / f"{folder.name}.TXT"
        file.write_text("".join(f"{folder.name}/{path.name}\n" for path in sorted(folder.iterdir())))
        listed.append(file)
    pairs, expected = make_pairs((listed[0], listed[1])), make_pairs(folders)
    assert all(is_equal(pairs[index], expected[index]) for index in range(40))


@pytest.mark.parametrize(
    ("data", "text"),
    [(b" \n\n", "is empty; a list has the path"), (b"\xff\xfe\x00", r"is no text in UTF-8; a list has")],
)
def test_a_list_of_nothing_is_an_error(data: bytes, text: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(DataError, match=text):
        make_pairs((tmp_path / "list.txt", folders[1]))


def test_a_folder_without_pictures_is_an_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere does not exist. Check its name and folder"):
        make_pairs((folders[0], tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").write_text("no picture")
    with pytest.raises(ImageError, match=r"bare holds no picture, only 1 other file \(\.txt\); at least one is needed"):
        make_pairs((tmp_path / "bare", folders[1]))


def test_damage_keeps_the_picture_and_adds_texture_to_flat_areas() -> None:
    flat = torch.full((3, 64, 64), 0.5)
    flat[:, :, 32:] = 0.7
    for seed in range(8):
        result = damaged(flat, torch.Generator().manual_seed(seed))
        assert result.shape == flat.shape and 0 <= float(result.min()) <= float(result.max()) <= 1
        assert 0 < float((result - flat).abs().mean()) < 0.06, seed
        assert torch.equal(result, damaged(flat, torch.Generator().manual_seed(seed)))


def test_only_the_contents_of_style_pairs_are_damaged(pictures: Path) -> None:
    schedule = PairSchedule(length=8, batch=4, n_self_pairs=2)
    folders = pictures / "content", pictures / "style"
    clean, dirty = (
        [TrainingPairs(*folders, schedule, crop=CROP, seed=1, damage=share)[index] for index in range(8)]
        for share in (0.0, 1.0)
    )
    for index, (one, other) in enumerate(zip(clean, dirty, strict=True)):
        same = torch.equal(one.content, other.content)
        assert same is (index % 4 < 2), index
