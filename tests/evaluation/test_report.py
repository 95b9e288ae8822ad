"""report.html: complete without other files, escaped, valid HTML; in its chart, better is up and to the right."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from adaattn_core.errors import OutputError
from adaattn_core.evaluation.metric_suite import METRICS
from adaattn_core.evaluation.report import Example, render
from adaattn_core.evaluation.scatter_plot import has_matplotlib, scatter_svg

pytest.importorskip("jinja2", reason="pip install jinja2 to write the report")
needs_matplotlib = pytest.mark.skipif(not has_matplotlib(), reason="pip install matplotlib to draw the chart")

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
            "missing": None if name in measured else f"no <{name}> here", "pairs": 2 if name in measured else None,
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
    assert [link for link in page.links if not link.startswith("#")] == [PIXEL] * 4
    assert "link" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"https?:|url\((?!#)|@import|fetch\(", html)


def test_names_cannot_become_markup(report: dict[str, Any]) -> None:
    html = render(report, EXAMPLES)
    for text in (NAME, "<oil>", "vgg<19>.pth", "x.png is <cut> short", "no <gram> here", "Style <0.400>"):
        assert text not in html
        assert text in "".join(checked(html).text), text


def test_what_is_missing_says_why(report: dict[str, Any]) -> None:
    text = "".join(checked(render(report, [])).text)
    assert "not measured: Gram (VGG-16) (no <gram> here)" in text
    assert "3 of 2 pictures of peer were resized." in text
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


@needs_matplotlib
def test_a_chart_for_each_two_measures_one_of_them_shown(report: dict[str, Any]) -> None:
    html = render(report, [])
    charts = re.findall(r'<figure data-x="(\w+)" data-y="(\w+)"( hidden)?>', html)
    assert charts == [("lpips_vgg", "style_vgg16", ""), ("ssim", "style_vgg16", " hidden")]


# ---------------------------------------------------------------- the chart


@pytest.fixture
def metrics(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {metric["name"]: metric for metric in report["metrics"]}


def positions(svg: str) -> list[tuple[float, float]]:
    """The x and y of each method's marker, in pixels from the upper left corner."""
    points = re.findall(r'-point-\d+">.*?<use x="([\d.]+)" y="([\d.]+)"', svg, re.DOTALL)
    return [(float(x), float(y)) for x, y in points]


COLORS = ["s0", "s1", "muted", "muted"]


@needs_matplotlib
@pytest.mark.parametrize("kept", ["lpips_vgg", "ssim"])
def test_better_is_up_and_right(report: dict[str, Any], metrics: dict[str, Any], kept: str) -> None:
    svg = scatter_svg(report["subjects"], COLORS, metrics[kept], metrics["style_vgg16"])
    points = positions(svg)
    (_, mine_y), (_, peer_y), unchanged, copied = points
    assert unchanged == (max(x for x, _ in points), max(y for _, y in points))
    assert copied == (min(x for x, _ in points), min(y for _, y in points))
    assert mine_y < peer_y  # less style distance is higher up
    checked(svg)


@needs_matplotlib
def test_the_chart_has_a_title_and_a_description_in_words(report: dict[str, Any], metrics: dict[str, Any]) -> None:
    svg = scatter_svg(report["subjects"], COLORS, metrics["ssim"], metrics["style_vgg16"])
    assert 'role="img" aria-labelledby="ssim-style_vgg16-title ssim-style_vgg16-desc"' in svg
    assert '<title id="ssim-style_vgg16-title">Style (VGG-16) against SSIM</title>' in svg
    assert "peer: SSIM 0.350, Style (VGG-16) 0.400; content unchanged: SSIM 1.000, Style (VGG-16) 0.600" in svg


@needs_matplotlib
def test_labels_of_the_chart_are_text_and_its_colors_those_of_the_page(
    report: dict[str, Any], metrics: dict[str, Any]
) -> None:
    svg = scatter_svg(report["subjects"], COLORS, metrics["ssim"], metrics["style_vgg16"])
    text = "".join(checked(svg).text)
    for label in (NAME, "style copied", "content kept: SSIM \u2192", "style taken: Style (VGG-16) \u2192"):
        assert label in text
    assert "var(--s0)" in svg and "var(--muted)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


@needs_matplotlib
@pytest.mark.parametrize("name", ["$a_b$", "_hidden", "s\udce9a", "bell\x07", "a\nb", "\u753b", "x" * 200])
def test_any_name_can_be_drawn(report: dict[str, Any], metrics: dict[str, Any], name: str) -> None:
    report["subjects"][0]["name"] = name
    checker = checked(scatter_svg(report["subjects"], COLORS, metrics["ssim"], metrics["style_vgg16"]))
    shown = re.sub("[\udce9\x07\n]", "\ufffd", name)
    assert (shown if len(name) < 32 else "x" * 31 + "…") in checker.text


@needs_matplotlib
def test_equal_numbers_still_make_a_chart(report: dict[str, Any], metrics: dict[str, Any]) -> None:
    same = [copy.deepcopy(report["subjects"][0]) for _ in range(2)]
    for subject in same:
        for numbers in subject["values"].values():
            numbers.update(mean=0.0, low=0.0, high=0.0)
    assert len(positions(scatter_svg(same, ["s0", "s1"], metrics["ssim"], metrics["style_vgg16"]))) == 2


@needs_matplotlib
def test_the_legend_lies_beside_the_points(report: dict[str, Any], metrics: dict[str, Any]) -> None:
    for subject in report["subjects"]:
        subject["name"] = "W" * 32
    svg = scatter_svg(report["subjects"], COLORS, metrics["ssim"], metrics["style_vgg16"])
    names = [float(x) for x in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>W+', svg)]
    assert len(names) == 4
    assert max(x for x, _ in positions(svg)) < min(names)


@needs_matplotlib
def test_the_same_data_give_the_same_page(report: dict[str, Any]) -> None:
    html = render(report, EXAMPLES)
    assert html == render(copy.deepcopy(report), EXAMPLES)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids)) > 4
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', html)) <= set(ids)


def test_without_matplotlib_the_report_has_no_chart_and_says_so(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.evaluation.report.has_matplotlib", lambda: False)
    html = render(report, EXAMPLES)
    page = checked(html)
    assert "<svg" not in html and "against style taken" not in html
    assert "The report has no chart: matplotlib is not installed. Install it: pip install matplotlib" in page.text


def test_without_jinja2_there_is_one_line(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaattn_core.evaluation.report.importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputError) as error:
        render(report, EXAMPLES)
    assert str(error.value) == "report.html needs the package jinja2, which is not installed. Run: pip install jinja2"
