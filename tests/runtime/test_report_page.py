"""The page is readable: contrast on light and dark, nothing fetched, light on paper."""

from __future__ import annotations

import re

import numpy as np
import pytest

from predact.runtime import plotting
from predact.runtime.report_page import PAGE, STYLE


def colours(theme: str) -> dict[str, str]:
    """The custom properties of a theme; the dark one overrides the light one's."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
    found: dict[str, str] = {}
    for block in blocks[: 1 if theme == "light" else 2]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, relative luminance of sRGB."""
    luminances = []
    for colour in (first, second):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("ink", "paper"), ("muted", "paper"), ("muted", "card"), ("ink", "best"), ("warn-ink", "warn-paper")],
)
def test_text_has_the_contrast_that_wcag_asks_for(theme: str, text: str, ground: str) -> None:
    assert contrast(colours(theme)[text], colours(theme)[ground]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("hue", ["blue", "sky"])
def test_hues_that_follow_the_theme_stand_out_from_its_paper(theme: str, hue: str) -> None:
    assert contrast(colours(theme)[hue], colours(theme)["paper"]) >= 3


def test_light_page_has_the_colours_that_pictures_are_drawn_in() -> None:
    light = colours("light")
    assert {name: light[name] for name in plotting.PAGE_COLOURS.values()} == {
        name: colour for colour, name in plotting.PAGE_COLOURS.items()
    }


def test_every_property_used_is_defined() -> None:
    used = set(re.findall(r"var\(--([\w-]+)", STYLE))
    assert used <= set(re.findall(r"--([\w-]+):", STYLE))


def test_dark_is_for_screens_only() -> None:
    assert re.findall(r"@media ([^{]*prefers-color-scheme[^{]*) \{", STYLE) == [
        "screen and (prefers-color-scheme: dark)"
    ]


def test_page_and_style_fetch_nothing_and_run_nothing() -> None:
    assert not re.search(r"https?:|@import|url\(|<script|<link|\son\w+=", STYLE + PAGE)
    assert STYLE.count("{") == STYLE.count("}")


def test_every_class_of_the_page_has_a_rule() -> None:
    classes = {name for value in re.findall(r'class="([\w-]+)"', PAGE) for name in value.split()}
    assert classes
    assert classes <= set(re.findall(r"\.([a-z][\w-]*)", STYLE))
