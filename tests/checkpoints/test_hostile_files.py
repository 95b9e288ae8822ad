"""Weights files made to do harm: refused in one line that names what is wrong, and before they cost anything."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaattn_core import load_model, load_vgg, save_model
from adaattn_core.checkpoints import tensor_file
from adaattn_core.checkpoints.tensor_file import read_metadata, read_tensors
from adaattn_core.evaluation.networks import load_lpips_heads, load_vgg16
from adaattn_core.models.config import ModelConfig
from adaattn_core.models.encoder import VGG19_CONVS, conv_names
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.runtime.memory import is_out_of_memory
from tests.helpers.refused_files import refused
from tests.helpers.small_models import small_model

BIAS = "decoder.deep.bias"
TAMPERED = r".*a\.pth is a pickle that holds more than tensors, or is damaged; it was not executed\. Get the file .*"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model file that loads."""
    save_model(small_model(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewrite(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace tensors and metadata of a model file."""
    save_file({**load_file(path), **tensors}, path, {**read_metadata(path), **(metadata or {})})


# ---------------------------------------------------------------- values and types


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_with_nan_or_infinity_is_named(saved: Path, value: float) -> None:
    bias = load_file(saved)[BIAS]
    bias[3] = value
    rewrite(saved, {BIAS: bias})
    refused(lambda: load_model(saved), rf".*model\.safetensors: {BIAS} holds NaN or infinity, and so would every .*")


def test_a_number_that_float32_cannot_hold_is_infinity(saved: Path) -> None:
    rewrite(saved, {BIAS: torch.full((10,), 1e300, dtype=torch.float64)})
    refused(lambda: load_model(saved), rf".*: {BIAS} holds NaN or infinity, .*")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.uint8, torch.bool])
def test_a_tensor_of_another_type_is_named(saved: Path, dtype: torch.dtype) -> None:
    rewrite(saved, {BIAS: torch.ones(10, dtype=dtype)})
    kind = str(dtype).removeprefix("torch.")
    refused(lambda: load_model(saved), rf".*: {BIAS} is {kind}, not floating-point numbers\. Is it the right file\?")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_type_of_floating_point_is_read(saved: Path, dtype: torch.dtype) -> None:
    rewrite(saved, {BIAS: torch.ones(10, dtype=dtype)})
    assert torch.equal(load_model(saved).state_dict()[BIAS], torch.ones(10))


def poisoned(path: Path, tensors: dict[str, Tensor], name: str) -> Path:
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = torch.nan
    torch.save(tensors, path)
    return path


def test_networks_of_the_evaluation_are_checked_as_well(tmp_path: Path) -> None:
    heads = {f"lin{index}.weight": torch.ones(1, width, 1, 1) for index, width in enumerate((64, 128, 256, 512, 512))}
    path = poisoned(tmp_path / "heads.pth", heads, "lin2.weight")
    refused(lambda: load_lpips_heads(path), r".*heads\.pth: lin2 holds NaN or infinity, .*")


def test_odd_keys_beside_those_of_vgg16_are_ignored(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1), "features.x": torch.zeros(1)}, tmp_path / "a.pth")
    refused(lambda: load_vgg16(tmp_path / "a.pth"), r".*a\.pth does not fit the model: layers\..*")


def caffe_file(**changed: Tensor) -> dict[str, Tensor]:
    encoder = load_vgg().state_dict()
    names = {name.removeprefix("layers."): value for name, value in encoder.items()}
    return {**names, **{name.replace("__", "."): value for name, value in changed.items()}}


def test_the_normalisation_of_a_vgg_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(caffe_file(conv1_1__mean_activation=torch.ones(3)), path)
    refused(lambda: load_vgg(path), r".*a\.pth: conv1_1\.mean_activation has shape \(3,\) instead of \(64,\)\. .*")
    torch.save(caffe_file(conv1_1__mean_activation=torch.zeros(64)), path)
    refused(lambda: load_vgg(path), r".*a\.pth: layers\.conv1_2\.weight holds NaN or infinity, .*")


# ---------------------------------------------------------------- what it would cost


@pytest.fixture
def no_big_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion of a tensor of more than a million numbers fails."""

    def guarded(convert: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
            assert tensor.numel() < 10**6, "copied before its shape was checked"
            return convert(tensor, *args, **options)

        return call

    for name in ("float", "to", "clone", "half"):
        monkeypatch.setattr(Tensor, name, guarded(getattr(Tensor, name)))


@pytest.mark.usefixtures("no_big_copies")
@pytest.mark.parametrize("count", [2**30, 2**38])
@pytest.mark.parametrize("layout", ["0", "features.0", "conv1_1"])
def test_one_number_expanded_to_many_is_refused_by_its_shape(tmp_path: Path, layout: str, count: int) -> None:
    tensors = {f"{layout}.weight": torch.zeros(1).expand(count), f"{layout}.bias": torch.zeros(1)}
    if layout == "conv1_1":
        names = [f"{name}.{part}" for name in conv_names(VGG19_CONVS) for part in ("weight", "bias")]
        tensors = {**dict.fromkeys(names, torch.zeros(1)), **tensors}
    torch.save(tensors, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 20_000
    refused(lambda: load_vgg(tmp_path / "a.pth"), r".*a\.pth does not fit the model: .* more\. Is it the right file\?")


@pytest.mark.parametrize(
    "setting",
    [{"encoder_convs": [10**6, 1, 1, 1, 1]}, {"decoder_convs": [10**6, 2, 2]}, {"channels": [8, 8, 8, 2**40, 2**40]}],
)
def test_a_config_of_an_enormous_model_is_refused_before_it_is_built(
    saved: Path, setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StyleTransferModel, "__init__", lambda *_: pytest.fail("built"))
    rewrite(saved, {}, {"config": json.dumps({**ModelConfig().to_dict(), **setting})})
    (name,) = setting
    refused(lambda: load_model(saved), rf".* has a config that cannot be read: {name} is .* whole numbers from 1 to .*")


@pytest.mark.parametrize("config", ["[" * 5000 + "]" * 5000, '{"levels": ' + "[" * 100_000, '"' + "a" * 10**6 + '"'])
def test_a_long_or_deep_config(saved: Path, config: str) -> None:
    rewrite(saved, {}, {"config": config})
    refused(lambda: load_model(saved), r".* has a config that cannot be read: it has \d+ characters, at most 10000 .*|"
            r".* has a config that cannot be read: maximum recursion depth exceeded.*|.*'list' object .*")  # fmt: skip


def test_a_long_header_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "MAX_HEADER_BYTES", 1000)
    refused(lambda: load_model(saved), r".*model\.safetensors describes its tensors in 0 MiB; at most 0 are read, .*")


def repacked(path: Path, name: str, content: bytes | None, kind: int) -> None:
    """Write a zip file again, with other content of one entry, stored or compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, content if content is not None and entry.endswith(name) else data)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    repacked(tmp_path / "a.pth", "data.pkl", b"\x80\x02}" + b"N" * 10**6 + b".", zipfile.ZIP_DEFLATED)
    refused(lambda: read_tensors(tmp_path / "a.pth"), r".*a\.pth is compressed, which torch\.save never does\. .*")


def test_a_pickle_longer_than_any_state_dict_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    repacked(tmp_path / "a.pth", "data.pkl", b"\x80\x02" + b"]" * 300_000 + b".", zipfile.ZIP_STORED)
    text = r".*a\.pth holds more than the tensors of a network\. Is it the right file\?"
    refused(lambda: read_tensors(tmp_path / "a.pth"), text)
    (tmp_path / "a.pth").write_bytes(b"\x80\x02" + b"]" * 300_000 + b".")
    refused(lambda: read_tensors(tmp_path / "a.pth"), text)


def test_a_storage_that_claims_more_bytes_than_it_has(tmp_path: Path) -> None:
    """torch reads past the end of its memory if it is not mapped: the process may crash."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(200)}, path)
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    many = (10**8).to_bytes(4, "little")
    assert pickled.count(b"K\xc8") == 2  # the numbers in the storage and in the tensor
    repacked(path, "data.pkl", pickled.replace(b"K\xc8", b"J" + many), zipfile.ZIP_STORED)
    refused(lambda: read_tensors(path), r".*a\.pth is truncated or not a weights file\. Download it again\.")


# ---------------------------------------------------------------- pickles of something else


class Call:
    """Its pickle calls a function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.answer = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.answer


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # new files of this kind are no longer wanted
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "content",
    [
        Call(bytearray, 2**33),  # torch allows it: eight GiB of zeros
        Call(torch.ones, 2**33),
        quantized(),
        torch.ones(3).to_sparse(),
        torch.ones(3, device="meta"),
        Path("somewhere"),
        torch.nn.Identity(),
    ],
    ids=["bytearray", "function", "quantized", "sparse", "meta", "path", "module"],
)
def test_a_pickle_that_imports_more_than_a_state_dict_needs(tmp_path: Path, content: Any, new_format: bool) -> None:
    torch.save({"a": content}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    refused(lambda: read_tensors(tmp_path / "a.pth"), TAMPERED)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_state_dicts_of_both_formats_are_read(tmp_path: Path, new_format: bool) -> None:
    """Parameters, shared memory, views and numbers of every kind."""
    whole = torch.arange(6.0)
    state = {
        "whole": whole,
        "part": whole[2:4],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "scalar": torch.ones(()),
    }
    state |= {str(kind): torch.ones(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.float64)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    loaded = read_tensors(tmp_path / "a.pth")
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype and torch.equal(loaded[name], value), name


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_keys_that_are_no_names(tmp_path: Path, new_format: bool) -> None:
    torch.save({1: torch.zeros(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    refused(lambda: load_vgg(tmp_path / "a.pth"), r".*a\.pth holds no flat dict of tensors; a state dict is needed\.")


@pytest.mark.parametrize("data", [b".", b"N.", b"PK\x03\x04", b"\x80\x02}q\x00.", b"0" * 100, pickle.dumps(0, 5)])
def test_pickles_of_a_few_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    refused(lambda: load_vgg(tmp_path / "a.pth"), r".*a\.pth is truncated or not a weights file\. Download it again\.")


# ---------------------------------------------------------------- names


ESCAPES = "\x1b]0;title\x07\n\u202e"


def test_a_name_in_a_file_cannot_write_to_the_terminal(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, {ESCAPES: torch.zeros(1)})
    text = r".*: '\\x1b\]0;title\\x07\\n\\u202e' does not belong\. Is it the right file\?"
    refused(lambda: load_model(saved), text)


def test_a_long_name_is_shortened(saved: Path) -> None:
    rewrite(saved, {"x" * 100_000: torch.zeros(1)})
    refused(lambda: load_model(saved), r".*: 'x+\[\.\.\.\]x+' does not belong\. .{,100}")


def test_a_file_cannot_write_to_the_terminal_by_its_name(tmp_path: Path) -> None:
    refused(lambda: load_model(f"{ESCAPES}.safetensors"), r"\\x1b\]0;title\\x07\\n\\u202e\.safetensors: no such .*")


@pytest.mark.parametrize("name", ["a" * 300 + ".safetensors", "a\0.safetensors", "/" * 5000 + "a.safetensors"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    refused(lambda: load_model(name), r".*: no such weights file\. Check the path\.")
    refused(lambda: load_vgg(name), r".*: no such weights file\. Check the path\.")


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE", "ADAATTN_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    refused(lambda: load_model("published"), re.escape("no published model at ") + ".*")


def test_onednn_without_memory_is_out_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("could not read"))
