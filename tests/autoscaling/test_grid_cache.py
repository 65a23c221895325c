"""The kept grid: what was played, again; never another's; and anew where the file is damaged."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.grid_cache import kept_hpa_grid
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, make_pattern
from predact.autoscaling.policies.calibration import HpaGrid, play_hpa_grid
from predact.runtime.artifacts import content_hash

# A minute and a half: there are 99 settings.
CONFIG = AutoscaleConfig(episode_steps=3, history_steps=2, lookahead_steps=2)
LOAD = LoadConfig(pattern="spike")
SEEDS = (5, 6)


def pattern_of(load: LoadConfig = LOAD, config: AutoscaleConfig = CONFIG) -> LoadPattern:
    return make_pattern(load, config)


def kept(
    folder: Path, load: LoadConfig = LOAD, config: AutoscaleConfig = CONFIG, seeds: Sequence[int] = SEEDS
) -> HpaGrid:
    return kept_hpa_grid(config, pattern_of(load, config), seeds=seeds, cache_dir=folder)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "autoscaling").glob("*.json"))


def test_it_is_what_was_played_and_read_back_the_same(tmp_path: Path) -> None:
    played = play_hpa_grid(CONFIG, pattern_of(), seeds=SEEDS)
    assert kept(tmp_path) == played
    (path,) = files(tmp_path)
    before = path.stat()
    assert kept(tmp_path) == played
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def test_what_the_file_says_is_not_played_again(tmp_path: Path) -> None:
    kept(tmp_path)
    (path,) = files(tmp_path)
    results = [[float(number), 1.0, 0.5] for number in range(99)]
    path.write_text(json.dumps({"results": results, "hash": content_hash(results)}))
    assert [one.mean_cost_usd for one in kept(tmp_path).tried] == list(range(99))


def write_trace(path: Path, offset: int) -> LoadConfig:
    path.write_text("\n".join(str(50 + (number * 7 + offset) % 23) for number in range(200)))
    return LoadConfig(pattern=f"trace:{path}")


def test_whatever_changes_an_episode_has_a_file_of_its_own(tmp_path: Path) -> None:
    cache, trace = tmp_path / "cache", tmp_path / "load.txt"
    kept(cache)
    kept(cache, seeds=(6, 5))
    kept(cache, seeds=SEEDS[:1])
    for name in ("boot_s", "boot_jitter", "slow_usd", "service_s"):
        kept(cache, config=replace(CONFIG, **{name: getattr(CONFIG, name) * 1.5}))
    kept(cache, replace(LOAD, pattern="sine"))
    kept(cache, replace(LOAD, peak_share=0.5))
    for part in ("train", "test"):
        kept(cache, replace(write_trace(trace, 0), part=part))
    # The same file's name, and another content.
    kept(cache, write_trace(trace, 1))
    assert len(files(cache)) == 12


def test_the_files_name_says_which_load_it_is_of(tmp_path: Path) -> None:
    kept(tmp_path, LoadConfig(pattern="trace:elb"))
    (path,) = files(tmp_path)
    assert path.name.startswith("hpa_trace_elb-simulated-") and ":" not in path.name


def altered(text: str) -> str:
    data = json.loads(text)
    data["results"][7][0] += 1e-9
    return json.dumps(data)


def shortened(text: str) -> str:
    results = json.loads(text)["results"][:50]
    return json.dumps({"results": results, "hash": content_hash(results)})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "JSON"),
        (lambda text: "", "JSON"),
        (lambda text: "[1, 2]", "list indices"),
        (lambda text: '{"results": []}', "hash"),
        (altered, "does not match its hash"),
        (shortened, "is shorter"),
    ],
)
def test_a_damaged_file_is_named_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, reason: str
) -> None:
    played = kept(tmp_path)
    (path,) = files(tmp_path)
    whole = path.read_text()
    path.write_text(damage(whole))
    with caplog.at_level(logging.WARNING):
        assert kept(tmp_path) == played
    (line,) = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    assert path.name in line and reason in line and "\n" not in line
    assert path.read_text() == whole and not list(tmp_path.rglob("*.partial"))


def test_those_who_ask_at_the_same_time_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        grids = list(pool.map(lambda number: kept(tmp_path), range(3)))
    assert grids[0] == grids[1] == grids[2] and len(files(tmp_path)) == 1
