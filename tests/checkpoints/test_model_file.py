"""Model files: what is saved comes back, and what is not right is refused in one line that says why."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaattn_core import CheckpointError, ModelConfig, load_model, save_model
from adaattn_core.checkpoints.model_file import (
    build_on_meta,
    fingerprint,
    load_strict,
)
from adaattn_core.checkpoints.tensor_file import read_metadata, read_tensors
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.errors import OutputError
from adaattn_core.models.config import BASE as BASE_SHAPES
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.refused_files import refused
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

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


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    text = r".*model\.safetensors is truncated or no safetensors file\. Get it again\."
    refused(lambda: load_model(saved), text)


def test_a_text_file(saved: Path) -> None:
    saved.write_text("404: not found")
    refused(lambda: load_model(saved), r".* is truncated or no safetensors file\. .*")


@pytest.mark.parametrize("format_name", ["", "pt"])
def test_another_safetensors_format(saved: Path, format_name: str) -> None:
    rewrite(saved, metadata={"format": format_name})
    problem = r".* is not an AdaAttN model file \(no format 'adaattn' in its metadata\)\."
    text = rf"{problem} Choose a model that AdaAttN has saved\."
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
        (
            '{"channels": [8, 8]}',
            r"channels is \(8, 8\); 5 whole numbers from 1 to 8192 are needed, .*",
        ),
        ('{"channels": ["a", "b", "c", "d", "d"]}', ".*"),
        ('{"channels": [1.5, 2.5, 3.5, 4.5, 4.5]}', ".*"),
        ('{"channels": 8}', ".*"),
    ],
)
def test_a_config_that_makes_no_model(saved: Path, config: str, reason: str) -> None:
    rewrite(saved, metadata={"config": config})
    refused(lambda: load_model(saved), rf".*model\.safetensors has a config that cannot be read: {reason}\.")


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
    with pytest.raises(CheckpointError, match="needs the encoder vgg99, unknown here. Update adaattn."):
        load_model(tmp_path / "n.safetensors")
