"""Training pictures in tar files: the same as in folders, whatever is broken in them."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core.errors import DataError, ImageError
from adaattn_core.io.picture_sources import list_pictures, members, shard_paths
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataloader import batches
from adaattn_core.training.dataset import PairSchedule, Sample, TrainingPairs
from adaattn_core.training.loop import train
from adaattn_core.training.run_checkpoint import CHECKPOINT, read_checkpoint
from tests.helpers.tiny_training import tiny_settings, use_small_vgg, write_pictures
from tests.helpers.training_runs import stop_before

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def pack(shard: Path, files: dict[str, bytes], **options: Any) -> Path:
    """A tar file of these members."""
    with tarfile.open(shard, "w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return shard


def contents_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pairs_of(content: Path | str, style: Path | str, **options: Any) -> TrainingPairs:
    return TrainingPairs(content, style, PairSchedule(24, 4, 1, 4), crop=32, seed=0, **options)


def is_equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


# ---------------------------------------------------------------- the same as folders


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_file_is_the_folder_it_holds(kind: int, pictures: Path) -> None:
    long = "" if kind == tarfile.USTAR_FORMAT else "a folder with a name / " * 8  # headers of several blocks
    shard = pack(pictures / "photos.tar", contents_of(pictures / "content", f"./{long}x/"), format=kind)
    expected, found = (pairs_of(content, pictures / "style") for content in (pictures / "content", shard))
    assert all(is_equal(expected[index], found[index]) for index in range(24))


def test_ranges_globs_folders_and_lists_of_tar_files_are_one_data_set(pictures: Path) -> None:
    (pictures / "shards").mkdir()
    for number, (name, data) in enumerate(contents_of(pictures / "content").items(), 9):
        pack(pictures / "shards" / f"p-{number:03}.tar", {name: data})
    (pictures / "list.txt").write_text("shards/p-009.tar\nshards/p-010.tar\n")
    folder = pictures / "shards"
    expected = [f"{folder}/p-009.tar/0.png", f"{folder}/p-010.tar/1.png"]
    for source in (f"{folder}/p-{{009..010}}.tar", f"{folder}/p-*.tar", folder, pictures / "list.txt"):
        assert [str(picture) for picture in list_pictures(source)] == expected, source


@pytest.mark.skipif(os.name != "posix", reason="links need a right of their own on Windows")
def test_linked_folders_are_part_of_the_data_set(pictures: Path) -> None:
    (pictures / "linked").mkdir()
    for name in ("folders", "shards"):
        (pictures / name).mkdir()
        (pictures / name / "there").symlink_to(pictures / "linked")
    (pictures / "folders" / "circle").symlink_to(pictures / "folders")
    shard = pack(pictures / "linked" / "a.tar", contents_of(pictures / "content"))
    assert shard_paths(f"{pictures}/shards/**/*.tar") == [pictures / "shards" / "there" / "a.tar"]
    assert len(list_pictures(pictures / "shards")) == len(members(shard)) > 0
    shutil.copy(next((pictures / "content").iterdir()), pictures / "linked" / "b.png")
    assert list_pictures(pictures / "folders") == [pictures / "folders" / "there" / "b.png"]


def test_loose_pictures_beside_tar_files_are_the_data_set(pictures: Path) -> None:
    pack(pictures / "content" / "old.tar", contents_of(pictures / "style"))
    assert [picture.name for picture in list_pictures(pictures / "content")] == ["0.png", "1.png"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_of_tar_files_needs_none_before_it(workers: int, pictures: Path) -> None:
    shards = [pack(pictures / f"{part}.tar", contents_of(pictures / part)) for part in ("content", "style")]
    whole = list(batches(pairs_of(*shards), 0, workers=0))
    late = list(batches(pairs_of(*shards), 3, workers=workers))
    assert len(late) == 3
    assert all(torch.equal(a.style, b.style) for a, b in zip(whole[3:], late, strict=True))


def test_a_stopped_run_on_tar_files_ends_as_one_on_folders(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_vgg(monkeypatch)
    shards = {part: str(pack(pictures / f"{part}.tar", contents_of(pictures / part))) for part in ("content", "style")}
    folders = tiny_settings(pictures, pictures / "whole")
    train(TrainConfig(**folders))
    stopped = TrainConfig(**folders | shards | {"output": str(pictures / "stopped"), "workers": 1})

    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    train(stopped, resume=True)
    one, other = (read_checkpoint(pictures / name / CHECKPOINT)["model"] for name in ("whole", "stopped"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (pictures / "whole" / "losses.csv").read_text() == (pictures / "stopped" / "losses.csv").read_text()


def test_clips_in_a_tar_file_are_its_folders(pictures: Path) -> None:
    frame = (pictures / "content" / "0.png").read_bytes()
    shard = pack(
        pictures / "clips.tar", {f"{clip}/{frame_number}.png": frame for clip in "ab" for frame_number in (9, 10)}
    )
    pairs = pairs_of(shard, pictures / "style", frame_gap=1)
    assert [(str(one), str(other)) for one, other in pairs.frame_pairs] == [
        (f"{shard}/{clip}/9.png", f"{shard}/{clip}/10.png") for clip in "ab"
    ]
    assert pairs[5].target.shape == (3, 32, 32)


# ---------------------------------------------------------------- what is broken


def test_broken_members_are_passed_over_and_named(pictures: Path) -> None:
    whole = contents_of(pictures / "content")
    broken = {"cut.jpg": whole["0.png"][:99], "text.jpg": b"not a picture", "empty.png": b""}
    beside = {"notes.txt": b"x", ".hidden.png": whole["0.png"], "__MACOSX/._0.png": b"x"}
    shard = pack(pictures / "photos.tar", whole | broken | beside)
    pairs = pairs_of(shard, pictures / "style")
    named = {name for index in range(24) for name in pairs[index].unreadable}
    assert named == {f"{shard}/{name}" for name in broken}


def test_nothing_but_broken_members_is_an_error_that_names_one(pictures: Path) -> None:
    shard = pack(pictures / "photos.tar", {"text.jpg": b"not a picture"})
    with pytest.raises(DataError) as caught:
        pairs_of(shard, shard)[0]
    assert str(caught.value) == (
        f"100 pictures in a row cannot be read, the last is {shard}/text.jpg: it is not a picture that can "
        "be read (PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000, AVIF). Convert it to PNG first. "
        "Check the training folders."
    )


def test_a_tar_file_that_is_cut_short_gives_what_is_left(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = pack(pictures / "photos.tar", contents_of(pictures / "content"))
    second = members(shard)[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: second.offset + second.size // 2])
    assert [member.inside for member in members(shard)] == ["0.png", "1.png"]
    assert f"{shard} is damaged (unexpected end of data); only the 2 picture(s) before that are used" in caplog.text
    named = {name for index in range(24) for name in pairs_of(shard, pictures / "style")[index].unreadable}
    assert named == {f"{shard}/1.png"}


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("none.tar", None, "none.tar is missing. Check the name, or the range of numbers in it."),
        ("p-{1..2}.tar", None, "p-1.tar is missing. Check the name, or the range of numbers in it."),
        ("empty.tar", b"", "empty.tar is no tar file, or compressed (empty file). Make it anew with tar -cf."),
        ("text.tar", b"no tar file" * 99, "text.tar is no tar file, or compressed (invalid header). Make it anew with"),
        ("x.tar.gz", b"", "x.tar.gz is compressed, and pictures in it cannot be read one by one. Unpack it to a plain"),
        ("x.TGZ", b"", "x.TGZ is compressed, and pictures in it cannot be read one by one. Unpack it to a plain .tar"),
    ],
)  # fmt: skip
def test_what_is_no_tar_file_is_said_in_one_line(name: str, data: bytes | None, text: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        list_pictures(tmp_path / name)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_tar_file_without_pictures_is_an_error(pictures: Path) -> None:
    shard = pack(pictures / "notes.tar", {"notes.txt": b"no picture"})
    (pictures / "shards").mkdir()
    shutil.copy(shard, pictures / "shards")
    for source in (shard, pictures / "shards", pictures / "no*.tar", pictures / "nothing*.tar"):
        with pytest.raises(ImageError) as caught:
            list_pictures(source)
        assert str(caught.value) == (
            f"{source} holds no picture; at least one is needed. Check the tar files or their names."
        )


@pytest.mark.parametrize(("damage", "reason"), [("header", "bad header"), ("cut", "unexpected end of data")])
def test_what_is_behind_a_damaged_header_is_missed(
    damage: str, reason: str, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = pack(pictures / "photos.tar", contents_of(pictures / "content"))
    header = members(shard)[1].offset - tarfile.BLOCKSIZE
    assert not caplog.records
    data = shard.read_bytes()
    rest = b"x" * tarfile.BLOCKSIZE + data[header + tarfile.BLOCKSIZE :] if damage == "header" else b""
    shard.write_bytes(data[:header] + rest)
    assert [member.inside for member in members(shard)] == ["0.png"]
    assert f"{shard} is damaged ({reason}); only the 1 picture(s) before that are used" in caplog.text


def test_a_name_with_braces_that_is_no_range_is_itself() -> None:
    assert shard_paths("a{1,2}.tar") == [Path("a{1,2}.tar")]
