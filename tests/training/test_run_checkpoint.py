"""Checkpoints of a training run: which are kept, which run may resume from one, and damaged ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import adaattn_core.training.initialization
import adaattn_core.training.objective
from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.errors import CheckpointError, DataError, OutputError
from adaattn_core.models.config import ModelConfig
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.train import Trainer
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.loop import train
from adaattn_core.training.run_checkpoint import (
    CHECKPOINT,
    MODEL,
    check_same_settings,
    read_checkpoint,
    write_checkpoint,
)
from tests.helpers.tiny_training import small_vgg
from tests.helpers.training_runs import Configure, stop_before

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


def test_a_save_that_fails_leaves_the_save_before(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure())
    (run.folder / "checkpoints").mkdir(parents=True)
    run.save()
    before = (run.folder / CHECKPOINT).read_bytes()

    original = Path.write_bytes

    def cut_short(path: Path, data: bytes) -> int:
        written = original(path, data)
        if path.suffix == CHECKPOINT.suffix:
            os.truncate(path, written // 2)
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run.save()
    assert (run.folder / CHECKPOINT).read_bytes() == before
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == [CHECKPOINT.name]


def checkpoints(config: TrainConfig) -> dict[str, int]:
    """The step in each file of checkpoints/."""
    return {path.name: read_checkpoint(path)["step"] for path in (Path(config.output) / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (1, {}),
        (3, {"step-000004.pt": 4, "step-000005.pt": 5}),
        (9, {f"step-00000{step}.pt": step for step in range(1, 6)}),
    ],
)
@pytest.mark.parametrize("links", [True, False])
def test_the_last_checkpoints_are_kept(
    keep: int, names: dict[str, int], links: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(keep_checkpoints=keep, checkpoint_every=1)
    if not links:  # a disk that has none
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):  # saves the third step twice
        train(config)
    train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 6, **names}


def write_steps(path: Path, *steps: int, keep: int) -> set[str]:
    """Checkpoints one after another, each with a file time before that of the last one; the names that are left."""
    for before, step in zip((None, *steps), steps, strict=False):
        write_checkpoint(path, {"step": step}, before, keep)
        os.utime(path, (1000 - step, 1000 - step))
    return {file.name for file in path.parent.iterdir()}


def test_the_last_checkpoints_are_kept_although_the_clock_is_set_back(tmp_path: Path) -> None:
    left = write_steps(tmp_path / "latest.pt", 1, 2, 3, 4, keep=3)
    assert left == {"latest.pt", "step-000003.pt", "step-000002.pt"}


def test_a_run_that_went_back_first_gives_up_the_steps_it_left(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    write_steps(path, 1, 2, 3, 4, keep=3)
    os.replace(tmp_path / "step-000002.pt", path)
    assert write_steps(path, 2, 3, keep=2) == {"latest.pt", "step-000002.pt"}


def test_a_save_that_fails_removes_no_earlier_one(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(keep_checkpoints=2, checkpoint_every=1)
    stop_before(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    original = os.replace

    def replace_once(source: Path, target: Path) -> None:
        if Path(target).name == CHECKPOINT.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        original(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(OutputError, match="disk full while writing .*latest.pt"):
        train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 3, "step-000002.pt": 2, "step-000003.pt": 3}
    monkeypatch.setattr(os, "replace", original)
    train(config, resume=True)
    assert checkpoints(config) == {"latest.pt": 6, "step-000005.pt": 5}


def test_a_run_is_not_written_over(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    with pytest.raises(CheckpointError, match=r"latest\.pt: no checkpoint to resume from\. Start without --resume\.$"):
        train(config, resume=True)
    train(config)
    with pytest.raises(DataError, match=r"run already holds a run\. Add --resume to go on, or choose another --output"):
        train(config)


def test_an_unusable_run_folder_is_reported_before_the_work(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError) as caught:
            train(configure(output=str(output), content="not even looked at"))
        assert str(caught.value) == (
            f"{tmp_path / 'file'} is a file, and {output} has to be a folder. Choose another --output."
        )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"may not be written to\. Choose another --output, or change its permissions"):
        train(configure(output=str(tmp_path / "a" / "b")))


def test_a_run_resumes_only_with_its_own_settings(configure: Configure) -> None:
    config = configure(steps=2, distill_steps=0, reconstruct_steps=0)
    train(config)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, lr=1.0, steps=1), resume=True)
    assert str(caught.value) == (
        f"the run in {config.output} was started with other settings (steps 2 -> 1; lr 0.0001 -> 1.0). "
        "Resume with the same, or start a new run from its weights with --init."
    )
    train(replace(config, workers=1, checkpoint_every=7, vgg="elsewhere"), resume=True)  # these may change


def test_a_run_resumes_only_with_its_own_vgg(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(checkpoint_every=1)
    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)

    def other_vgg(source: str | Path) -> VGGEncoder:
        vgg = small_vgg(source)
        with torch.no_grad():
            next(vgg.layers.parameters()).mul_(2)
        return vgg

    monkeypatch.setattr(adaattn_core.training.initialization, "load_vgg", other_vgg)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, vgg="other.pth"), resume=True)
    assert str(caught.value) == (
        f"the VGG-19 of other.pth is not the one that the run in {config.output} was started with. "
        "Resume with that, or start a new run from its weights with --init."
    )


def test_a_changed_number_of_pictures_causes_a_warning(
    configure: Configure,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = shutil.copytree(pictures / "content", tmp_path / "content")
    config = configure(content=str(content))
    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    shutil.copy(content / "0.png", content / "2.png")
    train(config, resume=True)
    assert caplog.messages == [
        "there are other pictures than when the run was saved (content 2 -> 3): it goes on, but not as if it had "
        "never stopped"
    ]


def test_an_old_checkpoint_without_data_entries_is_resumed(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    path = train(config).parent / CHECKPOINT
    state = read_checkpoint(path)
    torch.save({name: value for name, value in state.items() if name not in ("vgg", "pictures")}, path)
    train(config, resume=True)


def test_a_setting_missing_from_an_old_checkpoint_counts_as_its_default(configure: Configure) -> None:
    config = configure()
    saved = json.dumps({name: value for name, value in asdict(config).items() if name != "weight_decay"})
    check_same_settings(config, saved)
    with pytest.raises(CheckpointError, match=r"other settings \(weight_decay 0\.0 -> 0\.5\)"):
        check_same_settings(replace(config, weight_decay=0.5), saved)


def test_a_finished_run_goes_on_with_more_steps(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=1)
    train(config)
    caplog.clear()
    train(replace(config, steps=3), resume=True)
    assert (
        "steps 1 -> 3: the run goes on, and its learning rate falls as in a run of 3 steps from here on" in caplog.text
    )
    assert read_checkpoint(Path(config.output) / CHECKPOINT)["step"] == 4
    with pytest.raises(CheckpointError, match=r"other settings \(steps 3 -> 2\)"):
        train(replace(config, steps=2), resume=True)


def test_steps_of_earlier_stages_may_not_be_raised(configure: Configure) -> None:
    config = configure(steps=1, distill_steps=0, reconstruct_steps=1)
    train(config)
    with pytest.raises(CheckpointError, match=r"other settings \(reconstruct_steps 1 -> 2\)"):
        train(replace(config, reconstruct_steps=2), resume=True)


def test_a_checkpoint_of_another_model_is_refused(configure: Configure, tmp_path: Path) -> None:
    narrow, wide = (ModelConfig(channels=(c, c, c, c, c)) for c in (8, 16))
    for name, model_config in (("narrow", narrow), ("wide", wide)):
        save_model(StyleTransferModel(model_config), tmp_path / f"{name}.safetensors")
    config = configure(init=str(tmp_path / "narrow.safetensors"), steps=1, distill_steps=0, reconstruct_steps=0)
    train(config)
    with pytest.raises(CheckpointError) as caught:
        train(replace(config, init=str(tmp_path / "wide.safetensors")), resume=True)
    line = str(caught.value)
    assert line.startswith(
        f"{Path(config.output) / CHECKPOINT} does not fit the model of these settings: size mismatch"
    )
    assert line.endswith("Resume with the --init of its first start.") and "\n" not in line


def damaged(whole: bytes) -> dict[str, bytes]:
    return {
        "half": whole[: len(whole) // 2],
        "nothing": b"",
        "text": b"no checkpoint",
        "stop": b".",
        "no end": whole[:-10],
    }


@pytest.mark.parametrize("damage", damaged(b""))
def test_a_damaged_checkpoint_is_refused(damage: str, configure: Configure) -> None:
    run = Trainer(configure())
    path = run.folder / CHECKPOINT
    path.parent.mkdir(parents=True)
    run.save()
    path.write_bytes(damaged(path.read_bytes())[damage])
    with pytest.raises(CheckpointError) as caught:
        train(run.config, resume=True)
    assert str(caught.value) == (
        f"{path} is damaged or no training checkpoint. Start a new run, from {run.folder / MODEL} with --init."
    )


def test_the_message_of_a_damaged_checkpoint_names_the_previous_one(configure: Configure) -> None:
    run = Trainer(configure())
    path = run.folder / CHECKPOINT
    path.parent.mkdir(parents=True)
    for step in (1, 2, 3):
        run.step = step
        run.save()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"Copy step-000002\.pt over it, which was saved before, and --resume\.$"):
        train(run.config, resume=True)
    shutil.copy(path.with_name("step-000002.pt"), path)
    train(run.config, resume=True)


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "model": {}}, tmp_path / "latest.pt")
    with pytest.raises(
        CheckpointError, match=r"no training checkpoint: it has no adapters, config, ema, optimizer, skip"
    ):
        read_checkpoint(tmp_path / "latest.pt")
