"""Weights files: what is saved comes back, and what is not right is refused in one line that says why."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaattn_core import CheckpointError, ModelConfig, load_model, save_model
from adaattn_core.checkpoints.model_file import (
    MODEL_FOLDERS_VARIABLE,
    build_on_meta,
    fingerprint,
    load_strict,
    model_folders,
    read_metadata,
    read_tensors,
)
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.errors import OutputError
from adaattn_core.models.config import BASE as BASE_SHAPES
from adaattn_core.models.config import COMPACT
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

checkpoint_module = sys.modules["adaattn_core.checkpoints.model_file"]
BIAS = "decoder.deep.bias"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model file that loads."""
    save_model(small_model(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewrite(
    path: Path, change: Callable[[dict[str, Tensor]], object] = len, metadata: dict[str, str] | None = None
) -> None:
    """Write a model file again with other tensors, and other metadata (an empty value takes a name away)."""
    tensors, about = load_file(path), {**read_metadata(path), **(metadata or {})}
    change(tensors)
    save_file(tensors, path, metadata={name: value for name, value in about.items() if value})


def refused(call: Callable[[], object], text: str) -> None:
    """The call ends in a CheckpointError of one line that matches `text` from end to end."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert re.fullmatch(text, message), message


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
def test_a_model_comes_back_rounded_to_float16(tmp_path: Path, config: ModelConfig) -> None:
    model, path = small_model(config=config), tmp_path / "model.safetensors"
    save_model(model, path)
    loaded = load_model(path)
    assert loaded.config == config
    wanted = model.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, wanted[name].half().float()), name
    save_model(loaded, tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert all(
        value.dtype == torch.float16 and torch.equal(value, again[name]) for name, value in load_file(path).items()
    )


def test_float32_comes_back_as_it_was(tmp_path: Path) -> None:
    model = small_model()
    save_model(model, tmp_path / "model.safetensors", dtype=torch.float32)
    loaded = load_model(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_a_loaded_model_is_ready(saved: Path) -> None:
    model = load_model(str(saved), device="cpu", dtype=torch.bfloat16)
    assert not model.training and model.precision == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad and not parameter.is_meta, name
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last), name


def test_metadata_describes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(small_model(), path, metadata={"trained_on": "nothing", "license": "CC0-1.0"})
    metadata = read_metadata(path)
    assert metadata.keys() == {"format", "version", "architecture", "config", "channels", "trained_on", "license"}
    assert (metadata["format"], metadata["version"], metadata["architecture"]) == ("adaattn", "1", "AdaAttN")
    assert ModelConfig.from_dict(json.loads(metadata["config"])) == SMALL
    assert json.loads(metadata["channels"]) == list(SMALL.channels)
    assert (metadata["trained_on"], metadata["license"]) == ("nothing", "CC0-1.0")


def test_empty_models_cost_nothing_and_draw_nothing() -> None:
    before = torch.random.get_rng_state()
    model = build_on_meta(ModelConfig())
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fingerprint_follows_every_weight() -> None:
    encoder = small_model().encoder
    print_before = fingerprint(encoder)
    assert re.fullmatch("[0-9a-f]{12}", print_before)
    assert fingerprint(small_model().encoder) == print_before
    for name, parameter in encoder.named_parameters():
        last, old = (-1,) * parameter.ndim, parameter[(-1,) * parameter.ndim].item()
        parameter[last] = old + 1e-3
        assert fingerprint(encoder) != print_before, name
        parameter[last] = old
        assert fingerprint(encoder) == print_before, name


# ---------------------------------------------------------------- whole or not at all


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        save_model(small_model(seed=1), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_saving_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is not a folder, so .* cannot be written. Create the folder first.$"):
        save_model(small_model(), tmp_path / "nowhere" / "model.safetensors")


# ---------------------------------------------------------------- strictness


def test_a_missing_tensor_is_named(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.pop(BIAS))
    text = rf".*model.safetensors does not fit the model: {BIAS} is missing\. Is it the right file\?"
    refused(lambda: load_model(saved), text)


def test_an_extra_tensor_is_named(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.update({"decoder.more": torch.zeros(1)}))
    refused(
        lambda: load_model(saved), r".* does not fit the model: decoder\.more does not belong\. Is it the right file\?"
    )


def test_a_misshapen_tensor_is_named_with_both_shapes(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.update({BIAS: torch.zeros(3)}))
    refused(lambda: load_model(saved), rf".*: {BIAS} has shape \(3,\) instead of \(10,\)\. Is it the right file\?")


def test_several_problems_are_counted(saved: Path) -> None:
    rewrite(saved, lambda tensors: [tensors.pop(name) for name in (BIAS, "decoder.deep.weight")])
    refused(lambda: load_model(saved), rf".*: {BIAS} is missing and 1 more\. Is it the right file\?")


def test_a_refused_file_changes_no_weights() -> None:
    model = small_model()
    before = fingerprint(model)
    tensors = {**small_model(seed=1).state_dict(), "more": torch.zeros(1)}
    refused(lambda: load_strict(model, tensors, "these"), r"these does not fit the model: more does not belong\. .*")
    assert fingerprint(model) == before


# ---------------------------------------------------------------- files that are something else


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    text = r".*model\.safetensors is truncated or no safetensors file\. Get it again, or use adaattn convert\."
    refused(lambda: load_model(saved), text)


def test_a_text_file(saved: Path) -> None:
    saved.write_text("<!DOCTYPE html><html>404: not found</html>")
    refused(lambda: load_model(saved), r".* is truncated or no safetensors file\. .*")


@pytest.mark.parametrize("format_name", ["", "pt"])
def test_another_safetensors_format(saved: Path, format_name: str) -> None:
    rewrite(saved, metadata={"format": format_name})
    text = r".* is not an AdaAttN model file \(no format 'adaattn' in its metadata\)\. Use adaattn convert\."
    refused(lambda: load_model(saved), text)


def test_a_newer_version(saved: Path) -> None:
    rewrite(saved, metadata={"version": "2"})
    refused(lambda: load_model(saved), r".* has version '2', this library reads '1'\. Update adaattn\.")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "'config'"),
        ("{", ".*"),
        ("[]", ".*"),
        ("null", ".*"),
        ('{"heads": 8}', "unknown model settings heads; the file is newer than this library"),
        ('{"similarity": "dot"}', "similarity is 'dot'; known are softmax, cosine"),
        ('{"channels": [8, 8]}', r"channels is \(8, 8\); 5 numbers above 0 are needed, one for each block"),
        ('{"channels": ["a", "b", "c", "d", "d"]}', ".*"),
        ('{"channels": [1.5, 2.5, 3.5, 4.5, 4.5]}', ".*"),
        ('{"channels": 8}', ".*"),
    ],
)
def test_a_config_that_makes_no_model(saved: Path, config: str, reason: str) -> None:
    rewrite(saved, metadata={"config": config})
    refused(lambda: load_model(saved), rf".*model\.safetensors has a config that cannot be read: {reason}\.")


# ---------------------------------------------------------------- pickles


class Dangerous:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, plain: bool) -> None:
    path, marker = tmp_path / "model.pth", tmp_path / "executed"
    if plain:
        path.write_bytes(pickle.dumps(Dangerous(marker)))
    else:
        torch.save({"weight": Dangerous(marker)}, path)
    text = (
        r".*model\.pth is a pickle that holds more than tensors, or is damaged; it was not executed\. Get the file .*"
    )
    refused(lambda: read_tensors(path), text)
    assert not marker.exists()


def test_the_dangerous_pickle_is_dangerous(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Dangerous(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["a"], torch.arange(3.0))


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state": {"a": torch.zeros(2)}}, {"a": torch.zeros(2), "n": 3}])
def test_a_pth_that_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    refused(
        lambda: read_tensors(tmp_path / "a.pth"), r".*a\.pth holds no flat dict of tensors; a state dict is needed\."
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_pth(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(
        lambda: read_tensors(path), r".*a\.pth is (truncated or not a weights file\. Download it again|a pickle .*)\."
    )


# ---------------------------------------------------------------- names


def test_the_built_in_model_is_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_FOLDER", tmp_path)
    save_model(small_model(), tmp_path / "compact.safetensors")
    assert load_model().config == load_model("compact").config == SMALL


def test_an_unknown_model() -> None:
    text = r"unknown model 'large'; known are compact, base, or a \.safetensors file\."
    refused(lambda: load_model("large"), text)


@pytest.mark.parametrize("name", ["latest_net_decoder.pth", "model.pt", "model.ckpt"])
def test_a_published_checkpoint_is_no_model_file(name: str) -> None:
    text = rf"{name} is a published checkpoint; make a model file of it with adaattn convert first\."
    refused(lambda: load_model(name), text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pth"):
        text = rf".*{name}: no such weights file\. Check the path\."
        refused(lambda path=tmp_path / name: read_tensors(path), text)  # type: ignore[misc]
    refused(lambda: load_model(tmp_path / "model.safetensors"), r".*: no such weights file\. Check the path\.")


def test_base_without_a_file_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "home" / ".adaattn"]
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, os.pathsep.join(map(str, folders[:2])))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert model_folders() == folders
    candidates = [re.escape(str(folder / "adaattn_base.safetensors")) for folder in folders]
    refused(
        lambda: load_model("base"),
        rf"no full-size model at {' or '.join(candidates)}\. Download the published checkpoints \(links in the "
        r"README of github\.com/Huage001/AdaAttN\) and run: "
        rf"adaattn convert FOLDER --encoder vgg_normalised\.pth -o {candidates[2]}",
    )


def test_base_is_found_in_the_users_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv(MODEL_FOLDERS_VARIABLE, raising=False)
    (tmp_path / ".adaattn").mkdir()
    save_model(small_model(), tmp_path / ".adaattn" / "adaattn_base.safetensors")
    assert load_model("base").config == SMALL
    (tmp_path / "first").mkdir()
    save_model(small_model(config=SMALL_VIDEO), tmp_path / "first" / "adaattn_base.safetensors")
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(tmp_path / "first"))
    assert load_model("base").config == SMALL_VIDEO


# ---------------------------------------------------------------- the built-in weights


BUILT_IN = checkpoint_module.WEIGHTS_FOLDER / "compact.safetensors"
needs_built_in = pytest.mark.skipif(
    not BUILT_IN.exists(), reason="adaattn_core/weights/compact.safetensors is not there; adaattn train makes it"
)


@pytest.fixture(scope="module")
def built_in() -> StyleTransferModel:
    return load_model()


@needs_built_in
def test_the_built_in_model_is_small_and_says_what_it_is(built_in: StyleTransferModel) -> None:
    assert BUILT_IN.stat().st_size <= 12_000_000
    assert built_in.config == COMPACT
    assert all(parameter.isfinite().all() for parameter in built_in.parameters())
    metadata = read_metadata(BUILT_IN)
    assert metadata["trained_on"] and metadata["license"]
    assert not re.search(r'"(/|~|[A-Z]:)', metadata["trained_on"]), "a path of the machine it was trained on"
    assert list(BUILT_IN.parent.glob("LICENSE*"))


# ---------------------------------------------------------------- the shared encoder


@pytest.fixture(scope="module")
def full_size() -> StyleTransferModel:
    """A full-size model with the built-in VGG-19 as its encoder, and other weights of zero."""
    model = build_on_meta(BASE_SHAPES).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.encoder.load_state_dict(load_vgg(normalized=True).state_dict())
    return model


def test_a_model_without_its_encoder_comes_back_with_the_built_in_one(
    full_size: StyleTransferModel, tmp_path: Path
) -> None:
    save_model(full_size, tmp_path / "m.safetensors", share_encoder=True)
    assert not [name for name in read_tensors(tmp_path / "m.safetensors") if name.startswith("encoder.")]
    assert (tmp_path / "m.safetensors").stat().st_size < 20e6
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == full_size.config
    for name, value in full_size.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], value), name


def test_only_the_built_in_encoder_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not that of the built-in VGG-19; save the model with its encoder"):
        save_model(small_model(), tmp_path / "m.safetensors", share_encoder=True)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_file_that_names_an_unknown_encoder_is_refused(full_size: StyleTransferModel, tmp_path: Path) -> None:
    save_model(full_size, tmp_path / "m.safetensors", share_encoder=True)
    with safe_open(str(tmp_path / "m.safetensors"), framework="pt") as file:
        entries = dict(file.metadata())
    save_file(read_tensors(tmp_path / "m.safetensors"), tmp_path / "n.safetensors", entries | {"encoder": "vgg99"})
    with pytest.raises(CheckpointError, match="needs the encoder 'vgg99', unknown here. Update adaattn."):
        load_model(tmp_path / "n.safetensors")
