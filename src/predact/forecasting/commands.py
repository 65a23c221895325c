"""The commands `predact forecast` and `predact export`.

A command is a generator of what is to be shown, text or a rich renderable; `cli` prints it as it comes. Parts are
imported by the command that needs them, so that `predact --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from predact.forecasting.forecast import Forecast
    from predact.forecasting.forecaster import Forecaster
    from predact.forecasting.quantization import FormRow, QuantizationReport

FORECAST_EPILOG = """\
examples:
  predact forecast data/series/ett/ETTh1.csv --model saved_models/forecast_etth1.pth --horizon 24
  predact forecast etth1 --model forecast_etth1 --horizon 24 --plot next_day.svg
  predact forecast load.csv --model forecast_load --horizon 1 --follow --json      a line a new row
  collect | predact forecast - --model forecast_load --horizon 1 --follow          the same from a pipe, header first

lower and upper are the ends of the conformal band that holds 80 % of the values, unless the model was trained for
another share. They are corrected by how the forecasts of the latest values turned out, those of the file included as
far as the model was not trained on them. On another series than the model's, and in a pipe that is followed, they are
checked on that series alone, and called uncalibrated until enough is known. Notes stand on stderr with --json.
"""
EXPORT_EPILOG = """\
examples:
  predact export forecast_etth1                          measures all forms, keeps the fastest within 1 % of the errors
  predact export forecast_etth1 --quantize torch         only torch's own forms may be chosen
  predact export my_model.pth --series load.csv          errors from the validation part of another file

Forms: float torch, torch with int8 linear layers, torch with int8 LSTM and linear layers, ONNX Runtime float and int8.
MODEL.export.json holds what was measured and chosen, MODEL.int8.onnx or MODEL.onnx the graph where it is one of those;
MODEL.pth stays as it is. `predact forecast` and Forecaster.load then use the chosen form. --quantize none goes back to
float torch.
"""
SAVED_MODELS = Path("saved_models")
MAX_WINDOWS = 2000
"""Validation windows that forms are compared on; more are thinned out evenly."""


def add_forecast(commands: Any) -> None:
    """Add `predact forecast` to the subcommands."""
    summary = "forecast what comes next in a series, with intervals"
    parser = _command(commands, "forecast", forecast, summary, FORECAST_EPILOG)
    parser.add_argument("series", metavar="SERIES", help="CSV or Parquet, a name of the catalogue, or - for stdin")
    parser.add_argument("--model", required=True, metavar="MODEL", help="a model file, or the preset it was saved by")
    parser.add_argument("--horizon", type=int, metavar="N", help="steps ahead (default: all it was trained for)")
    parser.add_argument("--follow", action="store_true", help="wait for new rows, and forecast after each")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a forecast, a line each")
    form.add_argument("--csv", type=Path, metavar="OUT", help="write the (latest) forecast as CSV")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the (latest) forecast, .svg or .png")


def add_export(commands: Any) -> None:
    """Add `predact export` to the subcommands."""
    summary = "measure a forecaster as float, int8 and ONNX here, and keep the fastest form"
    parser = _command(commands, "export", export, summary, EXPORT_EPILOG)
    parser.add_argument("model", metavar="MODEL", help="a model file, or the preset it was saved by")
    choices = ("auto", "none", "torch", "onnx")
    parser.add_argument("--quantize", choices=choices, default="auto", help="what may be chosen (default: %(default)s)")
    tolerance = "accepted increase of MSE, MAE and pinball loss (default: %(default)s, one per cent)"
    parser.add_argument("--tolerance", type=_share, default=0.01, help=tolerance)
    parser.add_argument("--series", metavar="SERIES", help="CSV or Parquet, or a name; default: what it was trained on")


def forecast(arguments: argparse.Namespace) -> Iterator[RenderableType]:
    """Forecast after the last value of a series; with `--follow`, after every value that is added to it."""
    from predact.forecasting.following import follow
    from predact.forecasting.forecaster import Forecaster
    from predact.forecasting.identity import start_afresh
    from predact.forecasting.sources import read_source, stream_rules
    from predact.runtime.checkpoints import load_model

    if arguments.plot is not None and arguments.plot.suffix not in (".svg", ".png"):
        raise PredactError(f"cannot draw {arguments.plot}: its suffix must be .svg or .png")
    path = find_model(arguments.model)
    forecaster = Forecaster.load(path)
    meta = load_model(path).meta
    show = _Shown(arguments, forecaster)
    if arguments.series == "-" and arguments.follow:
        # Nobody knows whether this is the model's series, so that its bands have to prove themselves.
        start_afresh(forecaster)
        rules, timestamp = stream_rules(meta)
        for notes in follow(forecaster, sys.stdin, rules=rules, timestamp=timestamp):
            yield from show.notes(notes)
            if forecaster.seen >= forecaster.look_back:
                yield from show.latest()
        if forecaster.seen < forecaster.look_back:
            # Says how many values are missing.
            forecaster.forecast(arguments.horizon)
        return
    source = read_source(arguments.series, forecaster.facts, meta=meta, follow=arguments.follow)
    show = _Shown(arguments, forecaster, label=source.label, simulated=source.simulated)
    yield from show.notes(source.notes)
    source.tell(forecaster)
    yield from show.latest()
    if arguments.follow:
        for notes in source.follow(forecaster):
            yield from show.notes(notes)
            yield from show.latest()


def export(arguments: argparse.Namespace) -> Iterator[RenderableType]:
    """Compare all forms of a model on its validation windows, and write the chosen one beside it."""
    from predact.forecasting.forecaster import Forecaster
    from predact.forecasting.manifest import write_export
    from predact.forecasting.quantization import Comparison, compare_forms
    from predact.forecasting.sources import validation_windows
    from predact.runtime.checkpoints import load_model
    from predact.runtime.paths import shown

    path = find_model(arguments.model)
    forecaster = Forecaster.load(path, form="torch_float")
    windows = validation_windows(forecaster, load_model(path).meta, series=arguments.series, at_most=MAX_WINDOWS)
    if windows.note:
        yield f"note: {windows.note}"
    comparison = Comparison(choice=arguments.quantize, tolerance=arguments.tolerance)
    compared = compare_forms(forecaster.network, windows.inputs, windows.targets, comparison)
    report = compared.report
    yield report_table(report, title=f"{path.stem}: {windows.label}, {report.windows:,} validation windows")
    yield from report.notes
    manifest = write_export(path, compared)
    yield f"chosen: {report.chosen}, {report.why}"
    yield f"written: {shown(manifest)}"


def find_model(name: str) -> Path:
    """Return the file of a model that is named by its path or by the preset that saved it.

    Raises:
        PredactError: There is none; the places that were looked at are named.
    """
    path = Path(name)
    if path.is_file() and path.suffix == ".pth":
        return path
    if path.is_file() and (path.suffix or len(path.parts) > 1):
        raise PredactError(f"{path} is no model: a model is a .pth file that training wrote, see {SAVED_MODELS}/")
    if path.suffix == ".pth" or len(path.parts) > 1:
        raise PredactError(f"no model at {path}; train it first, or name another: see {SAVED_MODELS}/")
    places = [SAVED_MODELS / f"{name}{suffix}.pth" for suffix in ("", "-simulated")]
    for place in places:
        if place.is_file():
            return place
    raise PredactError(f"no model at {' or '.join(map(str, places))}; train it: python train.py --preset {name}")


def report_table(report: QuantizationReport, *, title: str) -> Table:
    """Return a quantisation report as a table, the chosen form in bold."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    table.caption = Text(f"one thread; {report.machine}", style="dim")
    table.add_column("form", no_wrap=True)
    headers = ("batch", "median ms", "min ms", "speed", "MSE", "MAE", "pinball", "errors", "largest shift", "kB")
    for header in headers:
        table.add_column(header, justify="right")
    for row in report.rows:
        style = "bold" if row.form == report.chosen else ""
        if row.median_ms is None:
            table.add_row(row.form, str(row.batch), Text(row.skipped, style="dim"), style=style)
            continue
        table.add_row(row.form, str(row.batch), *_cells(row, report), style=style)
    return table


def _cells(row: FormRow, report: QuantizationReport) -> list[str]:
    base = report.row("torch_float", row.batch)
    speed = (base.median_ms or math.nan) / (row.median_ms or math.nan) if base else math.nan
    numbers = ((row.median_ms, ".3f"), (row.min_ms, ".3f"), (speed, ".2f"), (row.mse, ".4f"), (row.mae, ".4f"))
    more = ((row.pinball, ".4f"), (row.worse, "+.2%"), (row.max_shift, ".4f"), (row.size_kb, ",.0f"))
    return ["–" if number is None else f"{number:{form}}" for number, form in (*numbers, *more)]


class _Shown:
    """Shows the latest forecast in the way that the arguments ask for."""

    def __init__(
        self, arguments: argparse.Namespace, forecaster: Forecaster, *, label: str = "stdin", simulated: bool = False
    ) -> None:
        self._arguments = arguments
        self._forecaster = forecaster
        self._label, self._simulated = label, simulated

    def notes(self, notes: tuple[str, ...]) -> Iterator[RenderableType]:
        """Say what was mended or is suspicious; beside the JSON, not in it."""
        for note in notes:
            if self._arguments.json:
                sys.stderr.write(f"note: {note}\n")
            else:
                yield f"note: {note}"

    def latest(self) -> Iterator[RenderableType]:
        from predact.runtime.artifacts import write_text

        arguments = self._arguments
        made = self._forecaster.forecast(arguments.horizon)
        if arguments.plot is not None:
            from predact.forecasting.forecast_plots import write_forecast_plot

            history = self._forecaster.history()
            write_forecast_plot(arguments.plot, made, history=history, simulated=self._simulated)
        if arguments.csv is not None:
            write_text(arguments.csv, "".join(csv_lines(made)))
            yield f"{arguments.csv}: {len(made.point)} steps of {', '.join(made.columns)}"
        elif arguments.json:
            content = {"series": self._label, "simulated": self._simulated, **json_object(made)}
            yield json.dumps(content, ensure_ascii=False, allow_nan=False)
        else:
            yield forecast_table(made, simulated=self._simulated)


def forecast_table(made: Forecast, *, simulated: bool = False) -> Table:
    """Return a forecast as a table: a row a step and channel; it says so where the series is generated."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    share = f"{made.coverage:.0%}"
    caption = f"lower to upper holds {share} of the values"
    if not made.calibrated:
        caption = f"UNCALIBRATED: too few forecasts were checked for lower to upper to hold {share} of the values"
    if simulated:
        caption = f"SIMULATED series; {caption}"
    table = Table(box=SIMPLE_HEAD, caption=Text(caption, style="dim"), caption_justify="left")
    table.add_column("time", no_wrap=True)
    table.add_column("channel")
    for header in ("point", "lower", "upper"):
        table.add_column(header, justify="right")
    for step, time in enumerate(_times(made)):
        for channel, name in enumerate(made.columns):
            numbers = (values[step, channel] for values in (made.point, made.lower, made.upper))
            table.add_row(time, Text(name), *(f"{number:,.6g}" for number in numbers))
    return table


def json_object(made: Forecast) -> dict[str, Any]:
    """Return a forecast as plain data: a record a step and channel."""
    records = []
    for step, time in enumerate(_times(made)):
        for channel, name in enumerate(made.columns):
            record: dict[str, Any] = {"time": time, "channel": name, "point": float(made.point[step, channel])}
            record |= {"lower": float(made.lower[step, channel]), "upper": float(made.upper[step, channel])}
            if made.quantiles is not None:
                record["quantiles"] = made.quantiles[step, channel].tolist()
            records.append(record)
    about = {"t0": made.t0, "step_s": made.step_s, "coverage": made.coverage, "calibrated": made.calibrated}
    return {**about, "levels": list(made.levels), "forecast": records}


def csv_lines(made: Forecast) -> Iterator[str]:
    """Yield the lines of a CSV file: time, channel, point, lower, upper and the quantiles."""
    yield ",".join(["time", "channel", "point", "lower", "upper", *(f"q{level:g}" for level in made.levels)]) + "\n"
    for step, time in enumerate(_times(made)):
        for channel, name in enumerate(made.columns):
            numbers = [float(values[step, channel]) for values in (made.point, made.lower, made.upper)]
            numbers += [] if made.quantiles is None else made.quantiles[step, channel].tolist()
            quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name
            yield ",".join([time, quoted, *(f"{number:.9g}" for number in numbers)]) + "\n"


def _times(made: Forecast) -> list[str]:
    """Return the times of the steps, or how many steps ahead they are where the times are not known."""
    times = made.times()
    if times is None:
        return [f"+{step + 1}" for step in range(len(made.point))]
    unit = "s" if made.step_s % 1 == 0 else "ms"
    return [str(time).replace("T", " ") for time in times.astype(f"datetime64[{unit}]")]


def _command(commands: Any, name: str, function: Any, summary: str, epilog: str) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog, formatter_class=formatter
    )
    parser.set_defaults(command=function)
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share such as 0.01, zero or more")
    return value
