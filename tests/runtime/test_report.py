"""The report: one file, nothing loaded, nothing run, every number as the tables show it."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from predact.runtime.plotting import add_axes, new_figure, to_png, to_svg
from predact.runtime.report import (
    Facts,
    Gallery,
    Notes,
    Numbers,
    Paragraph,
    Picture,
    Report,
    Results,
    Section,
    render,
    simulated_warning,
    write_report,
)
from predact.runtime.tables import MeanSpread, Values, result_table

HOSTILE = "</title></style><script src='http://evil.example/x.js'>alert(1)</script><img src=x onerror=alert(1)>\" & '"
VOID = {"meta", "img", "wbr", "br", "link", "input"}

ROWS: Values = {
    "all_positive": {"f1": 0.58, "fpr": 1.0, "windows": 931},
    "gat": {"f1": MeanSpread(0.99806, 0.00049, 3), "fpr": 0.000512, "windows": 931},
    "gat_uncalibrated": {"f1": None, "fpr": 0.2, "windows": 931},
}


class Page(HTMLParser):
    """The page as a browser's parser sees it: tags with attributes, text, and table cells by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[tuple[str, str]]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((dict(attrs).get("class") or "", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th") and self.rows:
            mark, text = self.rows[-1][-1]
            self.rows[-1][-1] = (mark, text + data.strip())

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == name]


def svg(title: str = "t") -> str:
    figure = new_figure(1.0)
    axes = add_axes(figure, left_in=0.4, bottom_in=0.3, width_in=3.0, height_in=0.5)
    axes.plot([0, 1, 2], [0, 1, 0], rasterized=True)
    axes.set_title(title)
    return to_svg(figure)


def report(*blocks: object, **changes: str) -> Report:
    texts = {"title": "fusion_demo", "headline": "It works."} | changes
    return Report(sections=(Section("Result", tuple(blocks)),), **texts)  # type: ignore[arg-type]


def test_every_number_of_a_table_stands_in_the_page_as_formatted() -> None:
    table = result_table(ROWS, title="test_01", baselines={"all_positive"}, headline="gat")
    page = Page(render(report(Results(table))))
    assert page.rows == [
        [("", "model"), ("", "F1"), ("", "FPR")],
        [("", "all_positive"), ("worst", "0.5800"), ("worst", "1.0000")],
        [("", "gat"), ("best", "0.9981 ± 0.0005"), ("best", "0.0005")],
        [("", "gat_uncalibrated"), ("", "–"), ("", "0.2000")],
    ]
    assert "windows 931" in page.text


def test_naive_headline_and_uncalibrated_rows_are_marked() -> None:
    table = result_table(ROWS, title="test_01", baselines={"all_positive"}, headline="gat")
    page = Page(render(report(Results(table))))
    classes = [attrs.get("class") for tag, attrs in page.tags if tag == "tr"]
    assert classes == [None, "baseline", "headline-row", "learned uncalibrated"]
    assert page.text.count("baseline") == 1
    assert page.text.count("headline") == 1


def test_all_blocks_are_written_in_order() -> None:
    blocks = (
        Paragraph("first words"),
        Numbers((("F1", "0.9980", "boosting 0.9930"),)),
        Notes(("a caveat",)),
        Facts((("preset", "fusion_demo"),)),
        Gallery((Picture(image=svg(), alt="a line", caption="the caption"),)),
    )
    page = Page(render(report(*blocks)))
    words = ["first words", "0.9980", "boosting 0.9930", "a caveat", "preset", "fusion_demo", "the caption"]
    places = [page.text.index(word, page.text.index("first words")) for word in words]
    assert places == sorted(places)
    assert page.open == []


def test_hostile_text_is_shown_and_never_obeyed() -> None:
    table = result_table({HOSTILE: {"f1": 1.0, HOSTILE: 2.0}}, title=HOSTILE, headline=HOSTILE)
    blocks = (
        Paragraph(HOSTILE),
        Numbers(((HOSTILE, HOSTILE, HOSTILE),)),
        Notes((HOSTILE,)),
        Facts(((HOSTILE, HOSTILE),)),
        Results(table),
        Gallery((Picture(image=svg(HOSTILE), alt=HOSTILE, caption=HOSTILE),)),
    )
    hostile = Report(title=HOSTILE, headline=HOSTILE, warning=HOSTILE, sections=(Section(HOSTILE, blocks),))
    page = Page(render(hostile))
    assert page.text.count(HOSTILE) >= 14
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link", "base"})
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert_loads_nothing(page)


def assert_loads_nothing(page: Page) -> None:
    for reference in page.attributes("href") + page.attributes("src"):
        assert reference.startswith(("#", "data:image/png;base64,"))
    for style in page.attributes("style") + page.attributes("clip-path"):
        assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", style))


def test_the_page_names_no_address_at_all() -> None:
    html = render(report(Gallery((Picture(image=svg(), alt="a"), Picture(image=to_png(new_figure(1.0)), alt="b")))))
    assert_loads_nothing(Page(html))
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert "default-src 'none'" in html


def test_pictures_are_whole_and_described() -> None:
    png = to_png(new_figure(1.0))
    page = Page(render(report(Gallery((Picture(image=svg(), alt="a line"), Picture(image=png, alt="nothing"))))))
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert image["alt"] == "nothing"
    assert base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,")) == png
    (drawing,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert (drawing["role"], drawing["aria-label"]) == ("img", "a line")
    rasters = [attrs["href"] or "" for tag, attrs in page.tags if tag == "image"]
    assert len(rasters) == 1
    assert base64.b64decode(rasters[0].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_ids_are_unique_and_every_reference_finds_its_own() -> None:
    pictures = tuple(Picture(image=svg(), alt=str(i)) for i in range(3))
    page = Page(render(report(Gallery(pictures), Gallery(pictures))))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [reference[1:] for reference in page.attributes("href") if reference.startswith("#")]
    targets += [re.fullmatch(r"url\(#(.*)\)", clip).group(1) for clip in page.attributes("clip-path")]  # type: ignore[union-attr]
    assert len(targets) > 6
    assert set(targets) <= set(ids)


def test_sections_of_one_name_have_anchors_of_their_own() -> None:
    twice = Report(title="t", headline="h", sections=(Section("Same", ()), Section("Same", ())))
    page = Page(render(twice))
    assert page.attributes("href") == ["#section-1", "#section-2"]
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["section-1", "section-2"]


def test_simulated_data_are_named_before_the_headline() -> None:
    text = Page(render(report(warning=simulated_warning("hcrl_sa")))).text
    assert text.index("SIMULATED DATA: no file of hcrl_sa was read") < text.index("It works.")
    assert "SIMULATED" not in Page(render(report())).text


def test_empty_notes_leave_no_trace() -> None:
    assert "<ul" not in render(report(Notes(())))


def test_same_report_gives_the_same_text() -> None:
    assert render(report(Gallery((Picture(image=svg(), alt="a"),)))) == render(
        report(Gallery((Picture(image=svg(), alt="a"),)))
    )


def test_report_is_written_as_utf8_even_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, report(Paragraph("α ± σ, capture \udcff.csv")))
    assert "α ± σ, capture ?.csv" in path.read_text(encoding="utf-8")
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]


SVG_HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<path onload="alert(1)" d=""/>',
        "<foreignObject/>",
        '<image xlink:href="http://evil.example/x.png"/>',
        '<use href="other.svg#x"/>',
        '<a href="#x"/>',
        '<path style="fill: url(http://evil.example/x)"/>',
        "<animate/>",
    ],
)
def test_a_drawing_that_runs_or_loads_something_is_refused(inside: str) -> None:
    with pytest.raises(ValueError, match="runs or loads something"):
        Picture(image=f"{SVG_HEAD}{inside}</svg>", alt="x")


@pytest.mark.parametrize("image", ["", "a text", "<svg><g></svg>", "<html/>", b"", b"GIF89a"])
def test_what_is_no_picture_is_refused(image: str | bytes) -> None:
    with pytest.raises(ValueError, match="'x'"):
        Picture(image=image, alt="x")
