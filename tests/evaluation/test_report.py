"""report.html: whole without other files, escaped, readable by a parser; its chart puts what is better up and right."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from adaattn_core.evaluation.metric_suite import METRICS
from adaattn_core.evaluation.report import Example, render
from adaattn_core.evaluation.scatter_plot import (
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    place_labels,
    round_numbers,
    scatter_svg,
)

NAME = '<b>mine & "yours"'
VOID = {"meta", "img"}
PIXEL = "data:image/jpeg;base64,/9j/"


def value(mean: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def subject(name: str, kind: str, style: float, lpips: float, ssim: float, to_first: float = 0.0) -> dict[str, Any]:
    values = {"style_vgg16": value(style), "lpips_vgg": value(lpips), "ssim": value(ssim)}
    return {
        "name": name, "kind": kind, "source": f"{name}.safetensors", "resized": 3 if kind == "pictures" else 0,
        "seconds": 1.25 if kind == "model" else None, "peak_gib": 0.5 if kind == "model" else None, "values": values,
        "to_first": {key: {**value(to_first), "won": 0.75} for key in values},
    }  # fmt: skip


@pytest.fixture
def report() -> dict[str, Any]:
    measured = ("style_vgg16", "lpips_vgg", "ssim")
    metrics = [
        {
            "name": name, "title": METRICS[name].title, "side": METRICS[name].side, "about": METRICS[name].about,
            "better": "higher" if METRICS[name].higher_is_better else "lower", "digits": METRICS[name].digits,
            "missing": None if name in measured else f"no <{name}> here",
        }
        for name in METRICS
    ]  # fmt: skip
    return {
        "settings": {"made": "today", "size": 512, "vgg": "vgg<19>.pth"},
        "metrics": metrics,
        "pairs": [["sea", "ink"], ["sea", "<oil>"]],
        "broken": {"x.png is <cut> short": 2},
        "intervals": {"confidence": 0.95, "resamples": 10, "seed": 0, "over": "pairs"},
        "subjects": [
            subject(NAME, "model", 0.30, 0.50, 0.40),
            subject("peer", "pictures", 0.40, 0.45, 0.35, to_first=0.1),
            subject("content unchanged", "reference", 0.60, 0.0, 1.0),
            subject("style copied", "reference", 0.02, 0.80, 0.05),
        ],
    }


EXAMPLES = [Example("sea__ink", 1.5, [PIXEL] * 4, ["sea", "ink", "Style 0.300", "Style <0.400>"])]


class Checker(HTMLParser):
    """Collects attributes and text, and complains of tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(content) for name, content in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_needs_nothing_else(report: dict[str, Any]) -> None:
    html = render(report, EXAMPLES)
    page = checked(html)
    assert page.links == [PIXEL] * 4
    assert "link" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"https?:|url\(|@import|fetch\(", html)


def test_names_cannot_become_markup(report: dict[str, Any]) -> None:
    html = render(report, EXAMPLES)
    for text in (NAME, "<oil>", "vgg<19>.pth", "x.png is <cut> short", "no <gram> here", "Style <0.400>"):
        assert text not in html
        assert text in "".join(checked(html).text), text


def test_what_is_missing_says_why(report: dict[str, Any]) -> None:
    text = "".join(checked(render(report, [])).text)
    assert "not measured: Gram (VGG-16) (no <gram> here)" in text
    assert "3 of 2 pictures of peer were resized to be judged." in text
    assert "2 pair(s) left out: x.png is <cut> short" in text
    assert "2 pairs of 1 contents and 2 styles, reduced to 512 pixels on the short side." in text


def cells(html: str, css: str) -> list[str]:
    return re.findall(rf'<td class="{css}" data-value="[^"]*">([^<]*)<', html)


def test_the_best_of_a_column_is_marked_references_aside(report: dict[str, Any]) -> None:
    assert cells(render(report, []), "best") == ["0.300", "0.400", "0.450"]  # style and SSIM, LPIPS
    del report["subjects"][1]
    assert cells(render(report, []), "best") == []  # one row alone is not the best of anything


def test_differences_have_the_color_of_what_they_mean(report: dict[str, Any]) -> None:
    """0.1 more is worse for style and LPIPS, better for SSIM; an interval around 0 means neither."""
    html = render(report, [])
    assert cells(html, "better") == ["+0.100"] and cells(html, "worse") == ["+0.100", "+0.100"]
    assert "better on 75%" in html
    for difference in report["subjects"][1]["to_first"].values():
        difference.update(low=-0.1)
    html = render(report, [])
    assert cells(html, "better") == cells(html, "worse") == []


def test_one_row_alone_has_no_differences(report: dict[str, Any]) -> None:
    del report["subjects"][1]
    assert "pair by pair" not in render(report, [])


def test_a_chart_for_each_two_measures_one_of_them_shown(report: dict[str, Any]) -> None:
    html = render(report, [])
    charts = re.findall(r'<figure data-x="(\w+)" data-y="(\w+)"( hidden)?>', html)
    assert charts == [("lpips_vgg", "style_vgg16", ""), ("ssim", "style_vgg16", " hidden")]


# ---------------------------------------------------------------- the chart


def places(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'class="marker" transform="translate\(([\d.]+) ([\d.]+)\)', svg)
    return [(float(x), float(y)) for x, y in found]


@pytest.mark.parametrize("kept", ["lpips_vgg", "ssim"])
def test_better_is_up_and_right(report: dict[str, Any], kept: str) -> None:
    by_name = {metric["name"]: metric for metric in report["metrics"]}
    svg = scatter_svg(report["subjects"], by_name[kept], by_name["style_vgg16"], ["s0", "s1", "reference", "reference"])
    (_, mine_y), (_, peer_y), unchanged, copied = places(svg)
    assert unchanged[0] == max(x for x, _ in places(svg)) and unchanged[1] == max(y for _, y in places(svg))
    assert copied[0] == min(x for x, _ in places(svg)) and copied[1] == min(y for _, y in places(svg))
    assert mine_y < peer_y  # less style distance is higher up
    assert all(LEFT < x < WIDTH - RIGHT and TOP < y < HEIGHT for x, y in places(svg))
    checked(svg)


def test_equal_numbers_still_make_a_chart(report: dict[str, Any]) -> None:
    same = [copy.deepcopy(report["subjects"][0]) for _ in range(2)]
    for one in same:
        for numbers in one["values"].values():
            numbers.update(mean=0.0, low=0.0, high=0.0)
    by_name = {metric["name"]: metric for metric in report["metrics"]}
    assert len(places(scatter_svg(same, by_name["ssim"], by_name["style_vgg16"], ["s0", "s1"]))) == 2


def test_labels_lie_on_nothing() -> None:
    """Five points close together, and one in a corner of the chart."""
    centres = [
        (400.0, 200.0),
        (410.0, 205.0),
        (395.0, 215.0),
        (430.0, 190.0),
        (380.0, 190.0),
        (WIDTH - RIGHT - 8, TOP + 8),
    ]
    points = [Point(x, y, (x - 12, x + 12), (y - 12, y + 12)) for x, y in centres]
    labels = place_labels(points, ["model one", "model two", "microast", "lite", "other", "content unchanged"])
    for index, label in enumerate(labels):
        assert label.left >= LEFT and label.right <= WIDTH - RIGHT and label.top >= TOP
        assert not any(label.meets(box) for point in points for box in point.boxes()), index
        assert not any(label.meets(other) for other in labels[:index]), index


def test_round_numbers_cover_what_they_should() -> None:
    assert round_numbers(-0.01, 1.02, 7) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_numbers(3, 38, 7) == [5, 10, 15, 20, 25, 30, 35]
