"""Devices and precisions by name, and the settings of torch that differ between devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from adaattn_core import encode_style, stylize
from adaattn_core.inference import stages
from adaattn_core.runtime.device import disable_tf32, inference_dtype, known_devices, pick_device, training_dtype
from tests.helpers.small_models import picture, small_model


def test_auto_is_the_first_known_device() -> None:
    assert str(pick_device("auto")) == known_devices()[0]
    assert known_devices()[-1] == "cpu"


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_is_float32_in_inference_and_in_training_bfloat16_where_native(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.runtime.device.computes_bfloat16", lambda device: native)
    assert training_dtype("auto", torch.device("cpu")) == expected
    assert inference_dtype("auto") == torch.float32
    assert training_dtype("float16", torch.device("cpu")) == inference_dtype("float16") == torch.float16


def test_a_device_without_autocast_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on DirectML, where every autocast call is an error."""
    model, content, style = small_model(), picture(40, 33), picture(32, 32, seed=1)
    wanted = stylize(model, content, style)

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported autocast device_type")

    monkeypatch.setattr("adaattn_core.runtime.device.autocast", refused)
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device_type: False)
    monkeypatch.setattr(torch, "is_autocast_enabled", refused)
    assert torch.equal(stylize(model, content, style), wanted)


def test_tf32_is_disabled_on_cuda_alone_and_the_setting_restored() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        for allowed in (True, False):
            torch.backends.cudnn.allow_tf32 = allowed
            with pytest.raises(ValueError, match="inside"), disable_tf32(torch.device("cuda")):
                assert not torch.backends.cudnn.allow_tf32
                raise ValueError("inside")
            assert torch.backends.cudnn.allow_tf32 == allowed
            with disable_tf32(torch.device("cpu")):
                assert torch.backends.cudnn.allow_tf32 == allowed
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_encoder_keys_and_queries_are_computed_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    @contextmanager
    def record(device: torch.device) -> Iterator[None]:
        entered.append(device.type)
        yield

    monkeypatch.setattr(stages, "disable_tf32", record)
    model = small_model()
    style = encode_style(model, picture(32, 32, seed=1))
    assert entered == ["cpu"] * 2, "encoder, keys and values"
    stylize(model, picture(40, 33), style)
    assert entered == ["cpu"] * 4, "encoder, queries"
