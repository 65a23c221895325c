"""Files become loads, or are refused by what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from predact.autoscaling.catalog import TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.traces import checked_trace, find_trace
from predact.runtime.errors import PredactError


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_one_number_a_line_is_a_trace_of_seconds(tmp_path: Path) -> None:
    trace = find_trace(write(tmp_path / "load.txt", [str(value) for value in range(100)]))
    assert trace.values.tolist() == list(range(100)) and trace.step_s == 1 and trace.day_s == 100
    assert trace.name == "load"


def test_a_table_says_its_step_and_has_a_day(tmp_path: Path) -> None:
    lines = [f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00:00,{hour % 24}" for hour in range(24 * 10)]
    trace = find_trace(write(tmp_path / "load.csv", ["timestamp,value", *lines]))
    assert trace.step_s == 3600 and trace.day_s == 86_400 and trace.values[:25].tolist() == [*range(24), 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["1", "2", "nan", *["4"] * 100], "missing"),
        (["1", "-2", *["4"] * 100], "is -2 at value 2, and a load is a number from 0 up"),
        (["1", "many", *["4"] * 100], "many"),
        (["a,b", *["1,2"] * 100], "has no column of timestamps"),
    ],
)
def test_what_is_no_load_is_refused_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(PredactError) as refused:
        find_trace(write(tmp_path / "load.csv", lines))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_missing_values_may_be_interpolated(tmp_path: Path) -> None:
    path = write(tmp_path / "load.csv", ["1", "2", "nan", *["4"] * 100])
    assert find_trace(path, on_gap="interpolate").values[:4].tolist() == [1, 2, 3, 4]


def test_a_name_that_is_no_file_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PredactError, match="trace nyc_taxis is no file and none of nyc_taxi, elb"):
        find_trace("nyc_taxis")


@pytest.mark.parametrize("values", [[], [1.0, np.inf], [1.0, np.nan], [-1.0]])
def test_no_trace_has_values_that_are_no_load(values: list[float]) -> None:
    with pytest.raises(PredactError):
        checked_trace("mine", np.array(values), 1.0)


@pytest.mark.parametrize("name", TRACES)
def test_every_known_trace_has_a_stand_in_that_says_so(name: str) -> None:
    load = make_pattern(LoadConfig(pattern=f"trace:{name}"), AutoscaleConfig())
    assert load.name == f"trace:{name}-simulated" and load.sample_s > 0


@pytest.mark.real_data
@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_known_trace_lasts_two_test_episodes(name: str, part: str) -> None:
    config = AutoscaleConfig()
    load = make_pattern(LoadConfig(pattern=f"trace:{name}", part=part, source="files"), config)  # type: ignore[arg-type]
    assert load.name == f"trace:{name}"
    window = config.history_steps + config.episode_steps + config.lookahead_steps
    drawn = [load.draw(np.random.default_rng(seed), window).share for seed in range(50)]
    assert all(len(share) == window and share.min() >= 0 for share in drawn)
    if part == "train":
        assert max(share.max() for share in drawn) <= 1 + 1e-9


@pytest.mark.parametrize("name", ["spike", "mixed", "nyc_taxi", "elb-simulated"])
def test_a_file_that_is_named_as_another_load_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_text("\n".join(str(50 + number % 7) for number in range(2000)))
    with pytest.raises(PredactError, match=rf"is named as the load {name}, .* rename it$") as caught:
        make_pattern(LoadConfig(pattern=f"trace:{path}"), AutoscaleConfig())
    assert "\n" not in str(caught.value)
    path.rename(path.with_stem("my_" + name.replace("-simulated", "")))
    assert make_pattern(LoadConfig(pattern=f"trace:{next(tmp_path.iterdir())}"), AutoscaleConfig()).name.startswith(
        "trace:my_"
    )
