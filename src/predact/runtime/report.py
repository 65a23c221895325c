"""Reports: what a run did and found, as one HTML file that needs nothing else, on paper, phone or desk, light or dark.

A task says what stands in it (`Report` of `Section`s of blocks); how it looks is `report_page`'s. All text is escaped;
pictures are drawn by our own code and are refused if they could run or load anything.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from predact.runtime.artifacts import write_text
from predact.runtime.report_page import PAGE, STYLE
from predact.runtime.tables import ResultTable

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHAPES = ("path", "rect", "circle", "line", "polyline", "polygon", "use", "text", "tspan", "image")
DRAWN = ("svg", "g", "defs", "clipPath", *SHAPES)
DROPPED = ("style", "metadata")
INNER_REFERENCES = ("#", "data:image/png;base64,")


class Block(Protocol):
    """A piece of a section; `kind` names the macro of the page that writes it."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Notes:
    """What a reader must know before believing a number, one sentence an item; an empty list is left out."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Facts:
    """Names and values: what was run, or which files it left."""

    items: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Numbers:
    """The few numbers that matter, large: (name, value, what it stands beside)."""

    items: tuple[tuple[str, str, str], ...]
    kind: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class Results:
    """A result table, best bold and worst grey, with the naive rows marked."""

    table: ResultTable
    kind: ClassVar[str] = "results"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as SVG text (`plotting.to_svg`) or PNG bytes, with what it shows in words.

    Raises:
        ValueError: Not the one or the other, or an SVG that runs or loads something.
    """

    image: str | bytes
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.image, bytes):
            if not self.image.startswith(PNG_SIGNATURE):
                raise ValueError(f"the picture {self.alt!r} is neither SVG text nor PNG bytes")
            return
        for element in _parse(self.image, self.alt).iter():
            if _runs_or_loads(element):
                raise ValueError(
                    f"the SVG of {self.alt!r} runs or loads something; draw it with predact.runtime.plotting"
                )


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other where there is room, else below each other."""

    pictures: tuple[Picture, ...]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did and found.

    Args:
        title: The run's name.
        headline: Its result in one sentence, with the data it stands on.
        sections: In reading order.
        warning: Shown above everything, e.g. that the data are simulated.
    """

    title: str
    headline: str
    sections: tuple[Section, ...]
    warning: str = ""


def simulated_warning(dataset: str) -> str:
    """Return the warning that every report on simulated captures or series carries."""
    return f"SIMULATED DATA: no file of {dataset} was read. Every number here comes from the built-in simulator."


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path`, whole or not at all."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """Return the report as one HTML document; the same report gives the same text."""
    # Not a file of the package: a template as text needs no packaging, and is compiled once a report.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(PAGE).render(report=report, style=Markup(STYLE), embed=_Numbered().embed)
    return text.encode("utf-8", "replace").decode()  # a file's name need not be text


class _Numbered:
    """Embeds pictures; ids inside an SVG are the page's, so each picture's get a prefix of their own."""

    def __init__(self) -> None:
        self._count = 0

    def embed(self, picture: Picture) -> Markup:
        if isinstance(picture.image, bytes):
            data = base64.b64encode(picture.image).decode()
            return Markup('<img class="paper" alt="{}" src="data:image/png;base64,{}">').format(picture.alt, data)
        self._count += 1
        root = _parse(picture.image, picture.alt)
        for element in root.iter():
            for dropped in [child for child in element if _local(child.tag) in DROPPED]:
                element.remove(dropped)
            # HTML knows SVG without name spaces.
            element.tag = _local(element.tag)
            attributes = {_local(name): _prefixed(name, value, f"p{self._count}-") for name, value in element.items()}
            element.attrib.clear()
            element.attrib.update(attributes)
        root.attrib.update({"role": "img", "aria-label": picture.alt})
        return Markup(ElementTree.tostring(root, encoding="unicode"))


def _parse(svg: str, alt: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"the picture {alt!r} is neither SVG text nor PNG bytes: {error}") from error


def _runs_or_loads(element: ElementTree.Element) -> bool:
    if _local(element.tag) not in DRAWN + DROPPED:
        return True
    return any(
        _local(name).lower().startswith("on")
        or (_local(name) == "href" and not value.startswith(INNER_REFERENCES))
        or re.search(r"url\((?!#)", value) is not None
        for name, value in element.items()
    )


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _prefixed(name: str, value: str, prefix: str) -> str:
    if _local(name) == "id":
        return prefix + value
    if _local(name) == "href":
        return re.sub("^#", f"#{prefix}", value)
    return value.replace("url(#", f"url(#{prefix}")
