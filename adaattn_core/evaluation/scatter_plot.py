"""The chart of an evaluation: content kept to the right, style taken upwards, one point for each method. Inline SVG.

Matplotlib draws it. Colours become CSS variables of the page (see templates/report.css), so that the chart follows its
light and dark scheme; text stays text; the same data always gives the same SVG.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

WIDTH_INCHES, HEIGHT_INCHES = 11.5, 5.5
AXES_RIGHT, MAX_NAME = 0.72, 32
"""Right end of the axes as a share of the width; letters of a method's name for which the legend has room."""
CSS_COLORS = {f"#0000{index:02x}": f"var(--{name})" for index, name in enumerate(
    ("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "muted", "ink", "line", "card"), start=1
)}  # fmt: skip
"""Colour that matplotlib draws with -> CSS variable that takes its place."""
PLACEHOLDERS = {variable[6:-1]: color for color, variable in CSS_COLORS.items()}
SVG_NAMESPACE, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

Data = Mapping[str, Any]


class Marker(NamedTuple):
    """A shape as matplotlib's marker, and as characters for the tables; hollow for baselines."""

    symbol: str
    filled: str
    hollow: str


MARKERS = (
    Marker("o", "\u25cf", "\u25cb"), Marker("s", "\u25a0", "\u25a1"), Marker("D", "\u25c6", "\u25c7"),
    Marker("^", "\u25b2", "\u25b3"), Marker("v", "\u25bc", "\u25bd"), Marker("P", "\u271a", "\u271b"),
)  # fmt: skip
"""Shapes of the methods in turn, so that colour alone does not tell them apart."""


def has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def scatter_svg(subjects: Sequence[Data], colors: Sequence[str], content: Data, style: Data) -> str:
    """The chart of two metrics as inline SVG.

    Args:
        subjects, content, style: of the report's data: "subjects", and two of "metrics".
        colors: CSS variable of each subject, without "--"; "muted" is a baseline with a hollow marker.
    """
    import matplotlib
    from matplotlib.figure import Figure

    identifier = f"{content['name']}-{style['name']}"
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": identifier, "font.size": 11})
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser draws the text, not matplotlib
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES))
        figure.subplots_adjust(left=0.08, right=AXES_RIGHT, bottom=0.12, top=0.98)
        axes = figure.add_subplot()
        handles = []
        for index, (subject, name) in enumerate(zip(subjects, colors, strict=True)):
            color, symbol = PLACEHOLDERS[name], MARKERS[index % len(MARKERS)].symbol
            face = PLACEHOLDERS["card"] if name == "muted" else color
            x, y = (subject["values"][metric["name"]] for metric in (content, style))
            axes.plot([x["low"], x["high"]], [y["mean"]] * 2, color=color, alpha=0.6)
            axes.plot([x["mean"]] * 2, [y["low"], y["high"]], color=color, alpha=0.6)
            handles += axes.plot(x["mean"], y["mean"], symbol, color=color, markerfacecolor=face, markersize=8)
            handles[-1].set_gid(f"{identifier}-point-{index}")
        _label(axes, content, style)
        _legend(figure, handles, [subject["name"] for subject in subjects])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    description = "; ".join(_describe(subject, content, style) for subject in subjects)
    return _inline(buffer.getvalue(), identifier, f"{style['title']} against {content['title']}", description)


def _label(axes: Any, content: Data, style: Data) -> None:  # noqa: ANN401 (matplotlib is optional)
    axes.set_xlabel(f"content kept: {content['title']} \u2192")
    axes.set_ylabel(f"style taken: {style['title']} \u2192")
    if content["better"] == "lower":
        axes.invert_xaxis()
    if style["better"] == "lower":
        axes.invert_yaxis()
    axes.grid(color=PLACEHOLDERS["line"])
    axes.set_axisbelow(True)
    axes.tick_params(colors=PLACEHOLDERS["muted"])
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(PLACEHOLDERS["muted"])
    for spine in axes.spines.values():
        spine.set_edgecolor(PLACEHOLDERS["line"])


def _legend(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:  # noqa: ANN401
    placeholders = map(str, range(len(names)))  # matplotlib would leave out a name that begins with an underscore
    legend = figure.legend(handles, placeholders, loc="upper left", bbox_to_anchor=(AXES_RIGHT, 1), frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(_printable(name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"))
        text.set_color(PLACEHOLDERS["ink"])


def _describe(subject: Data, content: Data, style: Data) -> str:
    values = (
        f"{metric['title']} {subject['values'][metric['name']]['mean']:.{metric['digits']}f}"
        for metric in (content, style)
    )
    return f"{subject['name']}: {', '.join(values)}"


def _inline(svg: bytes, identifier: str, title: str, description: str) -> str:
    """Matplotlib's SVG file as an element of an HTML page, with a title, a description and CSS colours.

    Several charts stand on one page, so their ids must differ: those that matplotlib refers to do by `svg.hashsalt`,
    ours by `identifier`, and all others are removed.
    """
    root = ElementTree.fromstring(svg)
    for name in ("metadata", "defs"):  # the first `defs` holds a style sheet, which would apply to the whole page
        element = root.find(f"{SVG_NAMESPACE}{name}")
        if element is not None:
            root.remove(element)
    text = svg.decode("utf-8")
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG_NAMESPACE)
        name = element.get("id", "")
        if f"#{name}" not in text and not name.startswith(identifier):
            element.attrib.pop("id", None)
        if f"{XLINK}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{XLINK}href"))
        if "style" in element.attrib:
            style = re.sub("font-family: [^;]*; |#[0-9a-f]{6}", _page_style, element.attrib["style"])
            element.set("style", style)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{identifier}-title {identifier}-desc")
    for index, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{identifier}-{tag}")
        element.text = _printable(words)
        root.insert(index, element)
    return ElementTree.tostring(root, encoding="unicode")


def _page_style(match: re.Match[str]) -> str:
    """Placeholder colours become CSS variables, and matplotlib's font family gives way to the page's."""
    return CSS_COLORS.get(match[0], match[0]) if match[0].startswith("#") else ""


def _printable(text: str) -> str:
    """Text without control characters and lone surrogates, which XML does not allow."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
