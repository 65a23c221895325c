"""The short flags: what they write for Hydra, and what is said of those that mean nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from configs import load_preset
from configs.command_line import hydra_arguments, split_arguments
from configs.preset import PRESETS
from tests.runtime.toy_train import ROOT, ask, toy_workplace


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with toy_workplace(tmp_path, monkeypatch):
        yield


TWO = "preset=gat_demo,vgae_demo"


def overrides(*arguments: str) -> list[str]:
    return hydra_arguments(split_arguments(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--preset", "fusion_demo"), ["preset=fusion_demo"]),
        (("--preset=fusion_demo", "seed=3"), ["preset=fusion_demo", "seed=3"]),
        (("seed=3", "preset=gat_demo"), ["preset=gat_demo", "seed=3"]),
        (("--training", "fusion", "--dataset", "set_04"), ["preset=fusion_set_04"]),
        (("--preset", "fusion_demo", "--lr", "0.1"), ["preset=fusion_demo", "agent.learning_rate=0.1"]),
        (("--preset", "gat_demo", "--lr", "0.1"), ["preset=gat_demo", "model.learning_rate=0.1"]),
        (("--preset", "gat_demo", "--epochs=2"), ["preset=gat_demo", "trainer.max_epochs=2"]),
        (("--preset", "fusion_demo", "--batch-size", "8"), ["preset=fusion_demo", "agent.batch_size=8"]),
        (("--preset", "gat_demo", "--name", "me", "--eval"), ["preset=gat_demo", "run.name=me", "run.evaluate=true"]),
        (("-m", "--preset", "gat_demo,vgae_demo", "--epochs", "1,2"), ["-m", TWO, "trainer.max_epochs=1,2"]),
        (("-m", "--preset", "gat_demo,vgae_demo", "seed=1"), ["-m", TWO, "seed=choice(1)"]),
        (("-m", "--preset", "gat_demo,vgae_demo", "hydra/launcher=joblib"), ["-m", TWO, "hydra/launcher=joblib"]),
        (("--preset", "gat_demo", "--cfg", "job", "--resolve"), ["--cfg", "job", "--resolve", "preset=gat_demo"]),
        (("--preset", "gat_demo", "--info", "defaults"), ["--info=defaults", "preset=gat_demo"]),
        (("--info", "--preset", "gat_demo"), ["--info=all", "preset=gat_demo"]),
        (("--hydra-help",), ["--hydra-help"]),
        (("--preset", "forecast_etth1", "--horizon", "192"), ["preset=forecast_etth1", "horizon=192"]),
        (("--training", "forecast", "--dataset", "etth1"), ["preset=forecast_etth1"]),
        (("--preset", "forecast_demo", "--lr", "0.1"), ["preset=forecast_demo", "model.learning_rate=0.1"]),
        (("--preset", "forecast_demo", "--batch-size=8"), ["preset=forecast_demo", "model.batch_size=8"]),
        (
            ("-m", "--preset", "forecast_demo", "--horizon", "12,24"),
            ["-m", "preset=forecast_demo", "horizon=12,24"],
        ),
        (
            ("--training", "forecast", "--dataset", "file:load.csv", "--horizon", "24"),
            ["preset=forecast_file", "horizon=24", "data.name='file:load.csv'"],
        ),
    ],
)
def test_short_flags_are_overrides(arguments: tuple[str, ...], expected: list[str]) -> None:
    assert overrides(*arguments) == expected


def test_quick_yields_to_shortcuts_and_shortcuts_to_overrides() -> None:
    written = overrides("--preset", "fusion_demo", "trainer.max_epochs=7", "--epochs", "5", "--quick")
    quick = [override for override in PRESETS["fusion_demo"].quick if override.startswith("trainer.max_epochs")]
    epochs = [override for override in written if override.startswith("trainer.max_epochs")]
    assert epochs == [*quick, "trainer.max_epochs=5", "trainer.max_epochs=7"] and len(quick) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no preset given; python train.py --list shows all"),
        (("--preset", "fusion_hcrlsa"), "no preset 'fusion_hcrlsa'; did you mean fusion_hcrl_sa"),
        (("--training", "fuson", "--dataset", "demo"), "no preset 'fuson_demo'; did you mean fusion_demo"),
        (("--training", "fusion"), "--training fusion needs --dataset"),
        (("--dataset", "demo"), "--dataset demo needs --training"),
        (("--preset", "gat_demo", "preset=vgae_demo"), "more than one preset given (gat_demo, vgae_demo)"),
        (("--preset", "gat_demo", "--timesteps", "5"), "--timesteps means nothing for gat_demo; its shortcuts are: --"),
        (("--preset", "gat_demo", "--epoch", "5"), "unknown flag --epoch; did you mean --epochs?"),
        (("--presett", "gat_demo"), "unknown flag --presett; did you mean --preset?"),
        (("--preset", "gat_demo", "--cfg", "jobb"), "--cfg jobb: choose one of job, hydra, all"),
        (("--preset", "gat_demo", "--horizon", "5"), "--horizon means nothing for gat_demo; its shortcuts are: --"),
        (
            ("--dataset", "file:x.csv"),
            "--dataset file:x.csv needs --training, e.g. --training forecast --dataset file:",
        ),
        (("--training", "gat", "--dataset", "file:x.csv"), "no preset 'gat_file'"),
        (("--training", "forecast", "--dataset", "etth3"), "no preset 'forecast_etth3'; did you mean forecast_etth"),
        (("--preset",), "--preset needs a value"),
        (("--preset", "--quick"), "--preset needs a value"),
    ],
)
def test_a_command_line_that_means_nothing_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = ask(capsys, *arguments)
    assert (code, out) == (1, "")
    assert message in err and len(err.splitlines()) == 1


def test_questions_are_answered_without_network_libraries() -> None:
    code = (
        "import sys, train; codes = train.cli(['--list']), train.cli(['--help']), train.cli(['--preset', 'x']); "
        "print(codes, {'torch', 'lightning', 'numpy', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\nfusion_hcrl_sa " in done.stdout and "Examples:" in done.stdout
    assert done.stdout.splitlines()[-1] == "(0, 0, 1) set()"


def test_the_config_is_shown_with_its_shortcuts_and_nothing_is_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = ask(capsys, "--preset", "fusion_demo", "--lr", "0.25", "--cfg", "job")
    config = OmegaConf.create(out)
    assert (code, err, config.agent.learning_rate, config.data.name) == (0, "", 0.25, "demo")
    assert list(tmp_path.iterdir()) == []


PATHS = [
    "load.csv",
    "my data/of the load.csv",
    "it's here.csv",
    'of "me".csv',
    "a=b.csv",
    "a,b.csv",
    "a:b.csv",
    "[a] {b} (c).csv",
    "50 % of it & more; $HOME #1!.csv",
    "${oc.env:HOME}.csv",
    "Datei für heute.csv",
    "ends with a backslash\\",
    "C:\\data\\load.csv",
    "\\'both\\'.csv",
    "null",
    "1e3",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_file_of_ones_own_is_named_whatever_its_path_holds(path: str) -> None:
    preset, *rest = overrides("--training", "forecast", "--dataset", f"file:{path}")
    assert preset == "preset=forecast_file"
    assert OmegaConf.to_container(load_preset("forecast_file", *rest), resolve=True)["data"]["name"] == f"file:{path}"


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_path_comes_through(path: str) -> None:
    (_, override) = overrides("--training", "forecast", "--dataset", f"file:{path}")
    assert OverridesParser.create().parse_override(override).value().replace("\\${", "${") == f"file:{path}"
