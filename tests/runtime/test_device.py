"""What devices have and have not, and what torch does there unasked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from adaattn_core import encode_style, stylize
from adaattn_core.inference import stages as painting
from adaattn_core.runtime.device import disable_tf32
from tests.helpers.small_models import picture, small_model


def test_a_device_without_autocast_paints_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on DirectML, where the mere mention of autocast is an error."""
    model, content, style = small_model(), picture(40, 33), picture(32, 32, seed=1)
    wanted = stylize(model, content, style)

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported autocast device_type")

    monkeypatch.setattr("adaattn_core.runtime.device.autocast", refused)
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device_type: False)
    monkeypatch.setattr(torch, "is_autocast_enabled", refused)
    assert torch.equal(stylize(model, content, style), wanted)


def test_convolutions_have_all_bits_on_nvidia_and_the_setting_comes_back() -> None:
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


def test_all_that_leads_to_attention_has_all_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device of its features, wherever the pictures are."""
    entered: list[str] = []

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        entered.append(device.type)
        yield

    monkeypatch.setattr(painting, "disable_tf32", noted)
    model = small_model()
    style = encode_style(model, picture(32, 32, seed=1))
    assert entered == ["cpu"] * 2, "encoder, keys and values"
    stylize(model, picture(40, 33), style)
    assert entered == ["cpu"] * 4, "encoder, queries"
