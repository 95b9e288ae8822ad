"""The colours of the pack's sockets can be told apart, also by people with any kind of colour blindness."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.comfy_pack import ROOT

Array = NDArray[np.float64]

HOST = {"IMAGE": "#64b5f6", "MASK": "#81c784"}
"""Colours that ComfyUI gives to the other sockets of these nodes."""
BACKGROUNDS = {"dark": ("#353535", 2.0), "light": ("#f0f0f0", 1.2)}
"""Colour of a node in ComfyUI's two palettes, and the least contrast of a socket with it."""
APART = 0.1
"""Least distance of two colours in OKLab, where 0.02 is about what is just seen side by side."""

VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""What of a colour in linear RGB is seen. Source: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1."""
TO_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
]
"""OKLab. Source: Ottosson, bottosson.github.io/posts/oklab."""


def ours() -> dict[str, str]:
    script = (ROOT / "web" / "adaattn.js").read_text(encoding="utf-8")
    return dict(re.findall(r'(ADAATTN_\w+): "(#[0-9a-f]{6})"', script))


def linear(colour: str) -> Array:
    """#rrggbb -> (3,) linear RGB in [0, 1]."""
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen(colour: str, vision: str) -> Array:
    """(3,) OKLab."""
    light = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    return np.asarray(np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ light))


def distance(one: str, other: str, vision: str) -> float:
    return float(np.linalg.norm(seen(one, vision) - seen(other, vision)))


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""
    lights = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def test_the_measures_are_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert distance("#000000", "#ffffff", "normal") == pytest.approx(1, abs=1e-4)
    assert distance("#ff0000", "#00a000", "normal") > 4 * distance("#b06000", "#808000", "deuteranopia")


@pytest.mark.parametrize("vision", VISION)
def test_socket_colours_are_told_apart(vision: str) -> None:
    near = {}
    for (one, first), (other, second) in combinations((ours() | HOST).items(), 2):
        if one.startswith("ADAATTN") and distance(first, second, vision) < APART:
            near[f"{one}, {other}"] = distance(first, second, vision)
    assert near == {}


@pytest.mark.parametrize("palette", BACKGROUNDS)
def test_socket_colours_stand_out_from_the_node(palette: str) -> None:
    background, least = BACKGROUNDS[palette]
    assert {
        kind: contrast(colour, background) for kind, colour in ours().items() if contrast(colour, background) < least
    } == {}
