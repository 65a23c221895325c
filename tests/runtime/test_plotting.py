"""The look of pictures: one file for light and dark, the same bytes every time, no surprise from a name."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from predact.runtime import plotting
from predact.runtime.errors import PredactError
from predact.runtime.plotting import (
    BLUE,
    INK,
    PAGE_COLOURS,
    KeyEntry,
    Stroke,
    add_axes,
    add_key,
    add_titles,
    key_height_in,
    new_figure,
    stroke_of,
    to_pixels,
    to_png,
    to_svg,
    training_curves_figure,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('$x$')</script> 漢\x00字 \\frac $"


def drawing(title: str = "title") -> Figure:
    figure = new_figure(1.5)
    axes = add_axes(figure, left_in=0.4, bottom_in=0.4, width_in=3.0, height_in=0.8)
    axes.plot([0, 1], [0, 1], color=INK)
    add_titles(axes, title=title, x="time, s", y="score")
    return figure


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_svg_and_png_are_the_same_bytes_every_time() -> None:
    assert to_svg(drawing()) == to_svg(drawing())
    assert to_png(drawing()) == to_png(drawing())


def test_svg_takes_the_colours_of_the_page_and_keeps_its_own_without_one() -> None:
    svg = to_svg(drawing())
    for colour in PAGE_COLOURS:
        assert svg.count(colour) == svg.count(f"var(--{PAGE_COLOURS[colour]}, {colour})")
    assert f"stroke: var(--ink, {INK})" in svg


def test_svg_text_is_text_in_the_font_of_the_page() -> None:
    svg = to_svg(drawing())
    assert {"title", "time, s", "score"} <= set(texts(svg))
    assert "DejaVu" not in svg


def test_png_is_opaque_white_paper_of_the_size_asked() -> None:
    pixels = imread(io.BytesIO(to_png(drawing(), dpi=100)))
    assert pixels.shape == (150, 460, 4)
    assert pixels[0, 0].tolist() == [1, 1, 1, 1]
    assert (pixels[..., 3] == 1).all()


def test_pixels_are_those_of_the_png() -> None:
    expected = imread(io.BytesIO(to_png(drawing(), dpi=50)))[..., :3]
    pixels = to_pixels(drawing(), dpi=50)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels / 255 - expected).max() < 1e-6


def test_a_hostile_name_is_shown_as_it_is_without_a_warning() -> None:
    assert HOSTILE.replace("\x00", " ") in texts(to_svg(drawing(title=HOSTILE)))
    assert to_png(drawing(title=HOSTILE)).startswith(b"\x89PNG")


def test_axes_stand_where_they_are_put_in_inches() -> None:
    figure = new_figure(3.0, width_in=5.0)
    axes = add_axes(figure, left_in=0.5, bottom_in=0.6, width_in=4.0, height_in=2.1)
    assert axes.get_position().bounds == pytest.approx((0.1, 0.2, 0.8, 0.7))


def test_a_row_keeps_its_stroke_and_an_unknown_one_gets_the_same_every_time() -> None:
    known = {"gat": Stroke(colour=BLUE)}
    assert stroke_of("gat", known) is known["gat"]
    assert stroke_of("new", known) == stroke_of("new", {})
    assert len({stroke_of(f"row_{i}", {}).colour for i in range(50)}) > 4


def test_key_lists_names_and_numbers_in_order_column_by_column() -> None:
    figure = new_figure(2.0)
    entries = [KeyEntry(name, f"0.{i}", Stroke(colour=BLUE)) for i, name in enumerate("abc")]
    add_key(figure, entries, top_in=1.0, value="AUROC")
    written = [(text.get_text(), *text.get_position()) for text in figure.axes[0].texts]
    x, y = {text: x for text, x, _ in written}, {text: y for text, _, y in written}
    assert [text for text, _, _ in written].count("AUROC") == 2
    assert x["a"] == x["b"] < x["0.0"] == x["0.1"] < x["c"] < x["0.2"]
    assert y["a"] == y["0.0"] == y["c"] > y["b"]
    assert min(y.values()) > 1.0 - key_height_in(len(entries))


def test_contrast_of_every_hue_is_three_on_light_and_on_dark_paper() -> None:
    hues = [plotting.VERMILLION, plotting.GREEN, plotting.AMBER, plotting.PINK, plotting.GREY]
    for hue in [*hues, plotting.BLUE, plotting.SKY, plotting.MUTED, plotting.INK]:
        assert contrast(hue, "#ffffff") >= 3
    for hue in hues:
        assert contrast(hue, "#16191d") >= 3


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, relative luminance."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


METRICS_CSV = """epoch,step,train/loss,val/loss,val/f1,epsilon
0,9,,1.5,0.25,1.0
0,9,2.0,,,
1,19,,0.75,0.5,nan
1,19,1.0,,,
"""


def curves(figure: Figure) -> dict[str, list[list[tuple[float, float]]]]:
    found = {}
    for axes in figure.axes:
        points = [[*zip(*map(np.ndarray.tolist, map(np.asarray, line.get_data())), strict=True)] for line in axes.lines]
        title = next(text.get_text() for text in axes.texts if text.get_weight() == "bold")
        found[title] = points
    return found


def test_training_curves_are_the_numbers_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS_CSV)
    figure = training_curves_figure(path)
    found = curves(figure)
    assert sorted(found["loss"]) == [[(0, 1.5), (1, 0.75)], [(0, 2.0), (1, 1.0)]]
    assert found["f1"] == [[(0, 0.25), (1, 0.5)]]
    assert found["epsilon"] == [[(0, 1.0)]]
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    to_svg(figure)


def test_several_numbers_an_epoch_are_drawn_over_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/loss\n0,4,3.0,\n0,9,2.0,\n0,9,,1.0\n")
    figure = training_curves_figure(path)
    assert sorted(curves(figure)["loss"]) == [[(4, 3.0), (9, 2.0)], [(9, 1.0)]]
    assert figure.axes[0].get_xlabel() == "step"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no .*metrics.csv; training writes it"),
        ("", "holds no number"),
        ("epoch,step,val/f1\n0,1,\n", "holds no number"),
        ("epoch,step,val/f1\n0,1,many\n", "is not a table of metrics"),
        ("epoch,step,val/f1\nfirst,1,0.5\n", "is not a table of metrics"),
    ],
)
def test_metrics_that_cannot_be_drawn_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "metrics.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PredactError, match=message):
        training_curves_figure(path)


def test_binary_metrics_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"epoch,step,x\n0,1,\xff\xfe\n")
    with pytest.raises(PredactError, match="is not a table of metrics"):
        training_curves_figure(path)


def test_matplotlib_is_imported_by_drawing_and_pyplot_never() -> None:
    code = (
        "import sys\nfrom predact.runtime.plotting import new_figure, to_png\nbefore = 'matplotlib' in sys.modules\n"
        "to_png(new_figure(1.0))\nprint(before, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
