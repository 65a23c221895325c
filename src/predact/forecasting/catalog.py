"""What is known of a series by its name, and whether a run reads its files or generates a stand-in.

Imports neither torch nor lightning, so that `configs/` can list the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, data_root

Source = Literal["auto", "files", "simulated"]
Kind = Literal["table", "numbers", "events", "generated"]

FILE_PREFIX = "file:"
DEFAULT_SPLIT = (0.6, 0.2, 0.2)
HORIZONS = (96, 192, 336, 720)
MIN_TEST_WINDOWS = 100


@dataclass(frozen=True, kw_only=True)
class SeriesInfo:
    """One series of the catalogue.

    Args:
        files: paths below `series/`, as the authors name them; none for a generated series.
        folders: other folders in which the authors publish the files.
        kind: `table` has a column of timestamps, `numbers` one value a line, `events` one timestamp an event, of which
            those in each step are counted, one channel a file.
        columns: channels, in order.
        num_rows: values that are used; the files may go on behind them.
        step_s: seconds from one value to the next.
        start: first timestamp, ISO 8601 in UTC; also the stand-in's.
        season: values per cycle; 1 where the training part shows none. It is the lag of the highest local maximum of
            the training part's autocorrelation, where it is clear (`seasons.estimate_season`).
        split: shares of training, validation and test, in this order of time.
    """

    name: str
    title: str
    kind: Kind
    columns: tuple[str, ...]
    num_rows: int
    step_s: float
    start: str
    season: int
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    split: tuple[float, float, float] = DEFAULT_SPLIT
    look_back: int = 336
    segment: int = 24
    horizon: int = 96
    source_page: str = ""
    licence: str = "MIT"

    @property
    def horizons(self) -> tuple[int, ...]:
        """The usual horizons for which the test part has at least 100 windows, and the series' own."""
        test = int(self.split[2] * self.num_rows)
        usual = (horizon for horizon in HORIZONS if test - horizon + 1 >= MIN_TEST_WINDOWS)
        return tuple(sorted({self.horizon, *usual}))


def _ett(number: int) -> SeriesInfo:
    return SeriesInfo(
        name=f"etth{number}",
        title=f"ETTh{number}: oil temperature and load of a power transformer, hourly",
        kind="table",
        columns=("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"),
        # Every published table splits 12, 4 and 4 months of 30 days, and leaves out the rows behind them.
        num_rows=20 * 30 * 24,
        step_s=3600.0,
        start="2016-07-01T00:00:00",
        season=24,
        files=(f"ett/ETTh{number}.csv",),
        folders=("ETT-small", "ETDataset/ETT-small"),
        source_page="https://github.com/zhouhaoyi/ETDataset",
        licence="CC BY-ND 4.0",
    )


def _autothrottle(kind: str, title: str, season: int) -> SeriesInfo:
    return SeriesInfo(
        name=f"autothrottle_{kind}",
        title=f"requests per second of the Autothrottle load trace: {title}",
        kind="numbers",
        columns=("requests",),
        num_rows=3_600,
        step_s=1.0,
        start="1970-01-01T00:00:00",
        season=season,
        files=(f"autothrottle/{kind}.txt",),
        source_page="https://github.com/microsoft/autothrottle",
    )


SERIES: dict[str, SeriesInfo] = {
    info.name: info
    for info in (
        _ett(1),
        _ett(2),
        SeriesInfo(
            name="nyc_taxi",
            title="taxi passengers in New York, every 30 minutes",
            kind="table",
            columns=("value",),
            num_rows=10_320,
            step_s=1800.0,
            start="2014-07-01T00:00:00",
            # .91 after a week, .82 after a day.
            season=336,
            files=("nab/nyc_taxi.csv",),
            folders=("realKnownCause", "data/realKnownCause"),
            source_page="https://github.com/numenta/NAB",
        ),
        SeriesInfo(
            name="elb",
            title="requests to an AWS load balancer, every 5 minutes",
            kind="table",
            columns=("value",),
            # 4,032 rows, and eight single ones that are missing.
            num_rows=4_040,
            step_s=300.0,
            start="2014-04-10T00:04:00",
            # .09 after a day: no cycle to speak of.
            season=1,
            files=("nab/elb_request_count_8c0756.csv",),
            folders=("realAWSCloudwatch", "data/realAWSCloudwatch"),
            source_page="https://github.com/numenta/NAB",
        ),
        SeriesInfo(
            name="azure_llm",
            title="requests per second to two language models on Azure",
            kind="events",
            columns=("code", "conv"),
            num_rows=3_424,
            # Of 57 minutes, 5 s would leave 684 values: too few to train on.
            step_s=1.0,
            start="2023-11-16T18:17:04",
            season=1,
            files=(
                "azure_llm/AzureLLMInferenceTrace_code.csv",
                "azure_llm/AzureLLMInferenceTrace_conv.csv",
            ),
            folders=("data",),
            source_page="https://github.com/Azure/AzurePublicDataset",
            licence="CC BY 4.0",
        ),
        _autothrottle("bursty", "bursts", 1),
        _autothrottle("diurnal", "a day", 1),
        # A cycle of 36 s, clearest over six of them.
        _autothrottle("noisy", "noise", 216),
        SeriesInfo(
            name="demo",
            title="a small generated series: cycles of a day and a week, trend, bursts, noise, level shifts",
            kind="generated",
            columns=("requests", "sessions"),
            num_rows=24 * 7 * 24,
            step_s=3600.0,
            start="2024-01-01T00:00:00",
            season=24,
            look_back=168,
            horizon=24,
        ),
    )
}


def find_series(name: str) -> SeriesInfo:
    """Return a series of the catalogue.

    Raises:
        PredactError: there is none of this name; the nearest one is offered.
    """
    if name in SERIES:
        return SERIES[name]
    nearest = get_close_matches(name.lower(), SERIES, n=1)
    if Path(name).suffix or "/" in name:
        raise PredactError(f"no series {name!r}; a file of your own is data.name={FILE_PREFIX}{name}")
    hint = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(SERIES)}, or {FILE_PREFIX}PATH"
    raise PredactError(f"no series {name!r}; {hint}")


def is_own_file(name: str) -> bool:
    """Return whether the name is that of a user's file, `file:<path>`, and of no series in the catalogue."""
    return name.startswith(FILE_PREFIX)


def series_label(name: str) -> str:
    """Return the name that results carry: the catalogue's, or the stem of a user's file."""
    if not is_own_file(name):
        return name
    file_name = Path(name.removeprefix(FILE_PREFIX)).name
    stem = file_name.removesuffix(".gz")
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in Path(stem).stem) or "series"


def find_files(name: str, *, source: Source, root: str | None) -> tuple[Path, ...]:
    """Return the files that a run on these settings reads; none where it generates its series.

    Only `auto` without a root may fall back to the stand-in.

    Args:
        root: folder of datasets that the user named; None for PREDACT_DATA or `data`. A relative `file:` path lies
            below a root that is named, else below the working folder.

    Raises:
        PredactError: files are asked for, or a root is named, and the series is not there.
    """
    if is_own_file(name):
        return (_own_file(name, source=source, root=root),)
    info = find_series(name)
    if info.kind == "generated":
        if source == "files" or root is not None:
            setting = "data.source=files" if source == "files" else f"data.root={root}"
            raise PredactError(f"{name} is always generated and has no files; drop {setting}")
        return ()
    if source == "simulated":
        return ()
    folder = data_root(root)
    if root is None and folder != data_root("data") and not folder.is_dir():
        raise PredactError(f"{DATA_VARIABLE}={folder} is no folder; correct it, or unset it to use ./data")
    found = [_locate(info, file, folder) for file in info.files]
    paths = tuple(path for path in found if path is not None)
    if len(paths) == len(info.files):
        return paths
    if source == "auto" and root is None:
        return ()
    missing = next(file for file, path in zip(info.files, found, strict=True) if path is None)
    advice = f"drop data.root={root}" if root is not None else "use data.source=simulated"
    raise PredactError(
        f"no {Path(missing).name} of {name} in {folder / 'series' / Path(missing).parent}; "
        f"get it from {info.source_page}, or {advice}"
    )


def is_simulated(name: str, *, source: Source, root: str | None) -> bool:
    """Return whether a run on these settings generates its series."""
    return not find_files(name, source=source, root=root)


def _own_file(name: str, *, source: Source, root: str | None) -> Path:
    if source == "simulated":
        raise PredactError(f"{name} has no stand-in; drop data.source=simulated, or choose from {', '.join(SERIES)}")
    text = name.removeprefix(FILE_PREFIX)
    if not text:
        raise PredactError(f"data.name={name} names no file; write {FILE_PREFIX}PATH")
    path = Path(root or "") / Path(text).expanduser()
    if not path.is_file():
        is_folder = f"{path} is a folder" if path.is_dir() else f"no file at {path}"
        nearest = get_close_matches(path.name, _names(path.parent), n=1)
        hint = f"did you mean {path.parent / nearest[0]}?" if nearest else f"correct data.name={name}"
        raise PredactError(f"{is_folder}; {hint}")
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _locate(info: SeriesInfo, file: str, root: Path) -> Path | None:
    """Return the first place of the file, plain or compressed: `series/<folder>/`, `<folder>/`, or the root itself."""
    name = Path(file).name
    folders = (Path(file).parent, *map(Path, info.folders), Path())
    for folder in (parent / below for parent in (root / "series", root) for below in folders):
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None
