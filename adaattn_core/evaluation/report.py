"""report.html: one file that a browser shows anywhere, with no other file and no connection.

Everything comes from the data of report.json (see `summary`) and from small pictures; names are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from .report_assets import CSS, JS
from .scatter_plot import marker, scatter_svg
from .summary import not_measured

Data = Mapping[str, Any]

CAVEATS = """\
<p>Every row was judged on the same pairs. Numbers are means over pairs; below them stands the {confidence:.0%}
bootstrap interval, which tells how far the mean would move with other pairs of the same kind. Pairs share contents and
styles, so it is somewhat too narrow. Bold is the best mean of its column, the two rows for reference aside.</p>
<p>No number here is a person's opinion. In a comparison with 34,608 human votes LPIPS correlated .59 with the content
that people saw kept, the Gram distance .04 with the style that they saw, and ArtFID, which the unchanged content wins,
.11: so look at the pictures, too. <b>content unchanged</b> and <b>style copied</b> are what doing nothing is worth:
a row that is no better than one of them on one side has given up that side, whatever its other numbers say.</p>"""


class Example(NamedTuple):
    """A pair as shown: data URIs of the content, the style, and each method's picture, with a caption below each.

    aspect_ratio: width over height of the content.
    """

    name: str
    aspect_ratio: float
    pictures: list[str]
    captions: list[str]

    @classmethod
    def of(cls, name: str, aspect_ratio: float) -> Example:
        return cls(name, aspect_ratio, [], [])

    def add(self, picture: str, caption: str) -> None:
        self.pictures.append(picture)
        self.captions.append(caption)


def render(report: Data, strips: Sequence[Example]) -> str:
    """The whole page.

    Args:
        report: from `summarize`.
        strips: pairs to show; pictures of each: content, style, then the subjects that are not for reference.
    """
    subjects = report["subjects"]
    classes = [f"s{index % 8}" if s["kind"] != "reference" else "reference" for index, s in enumerate(subjects)]
    judged = [subject for subject in subjects if subject["kind"] != "reference"]
    title = "Evaluation: " + ", ".join(subject["name"] for subject in judged)
    body = [
        f"<header><h1>{escape(title)}</h1><p>{_summary(report)}</p></header>",
        _section("Scores", _scores(report, classes) + _notes(report)),
        _section("Content kept against style taken", _charts(report, classes)),
        _section(f"Against {judged[0]['name']}, pair by pair", _differences(report, judged)) if len(judged) > 1 else "",
        _section("Pictures", _pictures(judged, strips)) if strips else "",
        _section("How to read this", CAVEATS.format(**report["intervals"]) + _definitions(report)),
        _section("How this was made", _settings(report)),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head><body><main>{''.join(body)}</main><script>{JS}</script></body></html>\n"
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inside}</section>\n"


def _summary(report: Data) -> str:
    contents, styles = ({pair[index] for pair in report["pairs"]} for index in (0, 1))
    settings = report["settings"]
    size = f", reduced to {settings['size']} pixels on the short side" if settings.get("size") else ""
    return (
        f"{len(report['pairs'])} pairs of {len(contents)} contents and {len(styles)} styles{size}. "
        f"{escape(str(settings.get('made', '')))}"
    )


# Tables


def _scores(report: Data, classes: Sequence[str]) -> str:
    metrics = sorted(report["metrics"], key=lambda m: ("style", "content", "both").index(m["side"]))
    rows = [
        f'<tr class="{css}">{_name_cell(index, subject["name"])}'
        + "".join(_value_cell(report, subject, metric) for metric in metrics)
        + "".join(_cost_cell(subject[name]) for name in ("seconds", "peak_gib"))
        + "</tr>"
        for index, (subject, css) in enumerate(zip(report["subjects"], classes, strict=True))
    ]
    return (
        f'<div class="wide"><table class="sortable"><thead>{_groups(metrics)}<tr><th><button>row</button></th>'
        + "".join(_head_cell(metric) for metric in metrics)
        + "<th><button>seconds<small>per picture</small></button></th>"
        + "<th><button>GiB<small>at peak</small></button></th></tr></thead>"
        + f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _groups(metrics: Sequence[Data]) -> str:
    titles = {"style": "style taken", "content": "content kept", "both": "both"}
    counts = {side: sum(metric["side"] == side for metric in metrics) for side in titles}
    cells = "".join(f'<th colspan="{counts[side]}">{title}</th>' for side, title in titles.items() if counts[side])
    return f'<tr class="groups"><th></th>{cells}<th colspan="2">cost</th></tr>'


def _head_cell(metric: Data) -> str:
    arrow = "\u2191" if metric["better"] == "higher" else "\u2193"
    css = ' class="missing"' if metric["missing"] else ""
    told = f"{metric['about']}; {metric['better']} is better"
    title, _, judge = metric["title"].partition(" (")
    below = f"<small>{escape(judge.rstrip(')'))}</small>" if judge else ""
    return f'<th{css} title="{escape(told)}"><button>{escape(title)}&nbsp;{arrow}{below}</button></th>'


def _name_cell(index: int, name: str) -> str:
    return f'<th scope="row"><svg class="key" viewBox="-8 -8 16 16">{marker(index)}</svg>{escape(name)}</th>'


def _value_cell(report: Data, subject: Data, metric: Data) -> str:
    value = subject["values"].get(metric["name"])
    if value is None:
        return '<td class="missing">–</td>'
    digits, best = metric["digits"], _best(report, metric)
    css = ' class="best"' if subject["kind"] != "reference" and value["mean"] == best else ""
    spread = f"<small>{value['low']:.{digits}f} – {value['high']:.{digits}f}</small>" if "low" in value else ""
    return f'<td{css} data-value="{value["mean"]:.9g}">{value["mean"]:.{digits}f}{spread}</td>'


def _best(report: Data, metric: Data) -> float | None:
    """Of at least two rows that are not for reference."""
    judged = [subject["values"] for subject in report["subjects"] if subject["kind"] != "reference"]
    means = [values[metric["name"]]["mean"] for values in judged if metric["name"] in values]
    if len(means) < 2:
        return None
    return float(max(means) if metric["better"] == "higher" else min(means))


def _cost_cell(value: float | None) -> str:
    return '<td class="missing">–</td>' if value is None else f'<td data-value="{value:.9g}">{value:.2f}</td>'


def _notes(report: Data) -> str:
    notes = not_measured(report)
    count = len(report["pairs"])
    for subject in report["subjects"]:
        if subject["resized"]:
            notes.append(f"{subject['resized']} of {count} pictures of {subject['name']} were resized to be judged.")
    notes += [f"{count} pair(s) left out: {reason}" for reason, count in report["broken"].items()]
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def _differences(report: Data, judged: Sequence[Data]) -> str:
    metrics = [metric for metric in report["metrics"] if metric["name"] in judged[0]["to_first"]]
    rows = []
    for subject in judged[1:]:
        cells = "".join(_difference_cell(subject["to_first"][metric["name"]], metric) for metric in metrics)
        rows.append(f'<tr><th scope="row">{escape(subject["name"])}</th>{cells}</tr>')
    first = escape(judged[0]["name"])
    return (
        f'<p>Row minus {first}, and the share of pairs on which the row is better. <span class="better">Green</span>: '
        f'better than {first}, <span class="worse">red</span>: worse, wherever the interval leaves out 0.</p>'
        '<div class="wide"><table class="sortable"><thead><tr><th><button>row</button></th>'
        + "".join(_head_cell(metric) for metric in metrics)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _difference_cell(value: Data, metric: Data) -> str:
    digits, sign = metric["digits"], 1 if metric["better"] == "higher" else -1
    css = ""
    if value["low"] > 0 or value["high"] < 0:
        css = ' class="better"' if value["mean"] * sign > 0 else ' class="worse"'
    spread = f"<small>{value['low']:+.{digits}f} … {value['high']:+.{digits}f}</small>"
    won = f"<small>better on {value['won']:.0%}</small>"
    return f'<td{css} data-value="{value["mean"]:.9g}">{value["mean"]:+.{digits}f}{spread}{won}</td>'


# Chart and pictures


def _charts(report: Data, classes: Sequence[str]) -> str:
    measured = [metric for metric in report["metrics"] if not metric["missing"]]
    contents, styles = ([m for m in measured if m["side"] == side] for side in ("content", "style"))
    charts = [
        f'<figure data-x="{x["name"]}" data-y="{y["name"]}"{"" if x is contents[0] and y is styles[0] else " hidden"}>'
        f"{scatter_svg(report['subjects'], x, y, classes)}</figure>"
        for x in contents
        for y in styles
    ]
    return (
        f'<div class="charts"><p class="controls"><label>content kept {_select("x", contents)}</label>'
        f"<label>style taken {_select('y', styles)}</label>"
        "<span>Up and to the right is better; lines are the intervals.</span></p>" + "".join(charts) + "</div>"
    )


def _select(axis: str, metrics: Sequence[Data]) -> str:
    options = "".join(f'<option value="{m["name"]}">{escape(m["title"])}</option>' for m in metrics)
    return f'<select data-axis="{axis}">{options}</select>'


def _pictures(judged: Sequence[Data], strips: Sequence[Example]) -> str:
    heads = ["content", "style", *(subject["name"] for subject in judged)]
    cells = [f"<b>{escape(head)}</b>" for head in heads]
    for strip in strips:
        for head, picture, words in zip(heads, strip.pictures, strip.captions, strict=True):
            alt = escape(f"{head}, {strip.name}")
            image = f'<img src="{picture}" alt="{alt}" style="aspect-ratio:{strip.aspect_ratio:.4f}" loading="lazy">'
            cells.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    return (
        f"<p>{len(strips)} of the pairs, evenly taken. Below each picture its own numbers.</p>"
        f'<div class="wide"><div class="pictures" style="--columns:{len(heads)}">{"".join(cells)}</div></div>'
    )


# Explanations


def _definitions(report: Data) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(metric["title"])}</th><td>{metric["better"]} is better</td>'
        f"<td>{escape(metric['about'])}</td></tr>"
        for metric in report["metrics"]
    )
    return f'<div class="wide"><table class="definitions"><tbody>{rows}</tbody></table></div>'


def _settings(report: Data) -> str:
    told = {**report["settings"], **{f"row {s['name']}": s["source"] or s["kind"] for s in report["subjects"]}}
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in told.items()
    )
    pairs = "".join(f"<li>{escape(content)} × {escape(style)}</li>" for content, style in report["pairs"])
    return (
        f'<div class="wide"><table class="definitions"><tbody>{rows}</tbody></table></div>'
        f'<details><summary>{len(report["pairs"])} pairs</summary><ol class="pairs">{pairs}</ol></details>'
    )
