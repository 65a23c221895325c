"""That `verify_setup.py` finds what is wrong, and names the way out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import verify_setup
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.detection.detectors import Detector
from predact.detection.gat import GATConfig
from predact.detection.vgae import VGAEConfig
from predact.forecasting.forecast import Forecast, SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import IntervalConfig, RollingCQR
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork
from predact.fusion.agent import FusionAgent
from predact.fusion.policies import FixedAlpha
from predact.runtime.checkpoints import load_model, save_model
from tests.autoscaling.tiny_agents import LEVELS, Rule, inverted, rule_agent, threshold
from verify_setup import Finding, main, run_check

ROOT = Path(__file__).resolve().parents[1]


def good() -> Finding:
    return Finding(is_ok=True, summary="fine", way_out="nowhere", details=("detail of good",))


def bad() -> Finding:
    return Finding(is_ok=False, summary="[broken]", way_out="mend it", details=("detail of bad",))


def test_exit_code_is_1_on_any_cross_and_0_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], checks=[("one", good), ("two", good)]) == 0
    assert main([], checks=[("one", good), ("two", bad), ("three", good)]) == 1
    assert capsys.readouterr().out.endswith("1 of 3 checks failed: two\n")


def test_only_a_cross_shows_its_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    main([], checks=[("one", good), ("two", bad)])
    text = capsys.readouterr().out
    assert (text.count("✓"), text.count("✗")) == (1, 1)
    assert "→ mend it" in text
    assert "[broken]" in text
    assert "nowhere" not in text
    assert "detail" not in text


def test_verbose_adds_details_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--verbose"], checks=[("one", good), ("two", bad)])
    text = capsys.readouterr().out
    assert "detail of good" in text
    assert "detail of bad" in text
    assert "0.0" in text


@pytest.mark.parametrize(
    ("error", "summary", "way_out"),
    [
        (ModuleNotFoundError("No module named 'x'"), "No module named 'x'", verify_setup.SET_UP),
        (RuntimeError("first\nsecond"), "RuntimeError: first", "--verbose"),
        (OSError(), "OSError: ", "--verbose"),
    ],
)
def test_a_check_that_raises_is_a_cross(error: Exception, summary: str, way_out: str) -> None:
    def check() -> Finding:
        raise error

    finding = run_check(check)
    assert not finding.is_ok
    assert summary in finding.summary
    assert way_out in finding.way_out


def test_control_c_ends_it_with_130() -> None:
    def check() -> Finding:
        raise KeyboardInterrupt

    assert main([], checks=[("one", check)]) == 130


def test_this_environment_is_what_the_package_needs() -> None:
    assert verify_setup.check_python().is_ok
    assert verify_setup.check_packages().is_ok
    assert verify_setup.check_torch().is_ok


@pytest.mark.parametrize(
    ("requirement", "named"),
    [("torch>=99", "torch>=99 ("), ("no-such-package-here", "no-such-package-here (missing)")],
)
def test_a_package_that_does_not_fit_is_named(requirement: str, named: str) -> None:
    finding = verify_setup.check_packages(["numpy", requirement])
    assert not finding.is_ok
    assert named in finding.summary
    assert "numpy" not in finding.summary


def test_packages_of_extras_are_not_needed() -> None:
    assert verify_setup.check_packages(["numpy", "no-such-package-here; extra == 'dev'"]).is_ok


def test_folders_are_made_and_nothing_is_left_in_them(tmp_path: Path) -> None:
    assert verify_setup.check_folders(tmp_path).is_ok
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "data", "logs", "saved_models"]


def test_a_folder_that_is_a_file_is_a_cross(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    finding = verify_setup.check_folders(tmp_path)
    assert not finding.is_ok
    assert "cache (" in finding.summary
    assert "logs" not in finding.summary


def test_without_files_the_simulator_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finding = verify_setup.check_data()
    assert finding.is_ok
    assert "0 datasets in data" in finding.summary


def test_a_data_folder_that_was_named_must_hold_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDACT_DATA", str(tmp_path))
    finding = verify_setup.check_data()
    assert not finding.is_ok
    assert str(tmp_path) in finding.summary


@pytest.mark.real_data
def test_real_captures_are_counted(real_data: Path) -> None:
    finding = verify_setup.check_data()
    assert finding.is_ok
    assert str(real_data) in finding.summary
    assert any(detail.startswith("hcrl_sa: ") for detail in finding.details)


def test_every_preset_composes() -> None:
    finding = verify_setup.check_presets()
    assert finding.is_ok, finding.details


@pytest.fixture
def detector_file(tmp_path: Path) -> Path:
    """An untrained GAT as `train.py` saves it."""
    torch.manual_seed(0)
    detector = Detector("gat", GATConfig(calibrated=False), reference_s=5.0)
    path = tmp_path / "gat_demo.pth"
    save_model(path, config=detector.plain_config(), state_dict=detector.state_dict(), meta={"window": {"size": 50}})
    return path


def test_no_saved_models_is_no_fault(tmp_path: Path) -> None:
    assert verify_setup.check_models(tmp_path).is_ok
    assert verify_setup.check_models(tmp_path / "gone").is_ok


def test_a_saved_detector_loads_and_predicts(detector_file: Path) -> None:
    finding = verify_setup.check_models(detector_file.parent)
    assert finding.is_ok, finding.summary
    assert "gat_demo.pth: " in finding.details[0]


def test_a_saved_fusion_agent_loads_and_predicts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gat = Detector("gat", GATConfig(), reference_s=5.0)
    vgae = Detector("vgae", VGAEConfig(), reference_s=5.0)
    graphs = vgae.columns_of(build_graphs(verify_setup.sample_traffic(), WindowConfig()))
    vgae.fit_error_scale(graphs, torch.arange(len(graphs)))
    policy = FixedAlpha(alpha=0.5, threshold=0.5)
    agent = FusionAgent(gat=gat, vgae=vgae, policy=policy, window=WindowConfig())
    agent.save(tmp_path / "fusion_agent_demo.pth", meta={})
    finding = verify_setup.check_models(tmp_path)
    assert finding.is_ok, finding.summary
    assert "fusion_agent_demo.pth: " in finding.details[0]


def save_forecaster(folder: Path, *, weight: float | None = None) -> None:
    torch.manual_seed(0)
    network = ForecastNetwork(NamedNetwork(SegmentLSTMConfig(hidden_dim=4, look_back=48), horizon=3))
    if weight is not None:
        network.load_state_dict({name: torch.full_like(value, weight) for name, value in network.state_dict().items()})
    facts = SeriesFacts(columns=("load", "users"), step_s=60.0, mean=(100.0, 5.0), std=(10.0, 2.0))
    intervals = RollingCQR(IntervalConfig(), channels=2, horizon=3)
    Forecaster(network, facts, intervals).save(folder / "forecast_demo.pth", meta={})


@pytest.mark.parametrize("weight", [None, 0.0, torch.nan], ids=["as trained", "constant", "nan"])
def test_a_saved_forecaster_continues_a_wave_and_a_constant_one_is_named(tmp_path: Path, weight: float | None) -> None:
    save_forecaster(tmp_path, weight=weight)
    finding = verify_setup.check_models(tmp_path)
    assert finding.is_ok == (weight is None), finding.summary
    assert "forecast_demo.pth: 3 steps of 2 channels by torch_float" in finding.details[0]


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_a_saved_forecaster_whose_point_lies_outside_of_its_band_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    save_forecaster(tmp_path)
    whole = Forecaster.forecast

    def without_its_point(forecaster: Forecaster) -> Forecast:
        made = whole(forecaster)
        # The ends do not cross: the band shrinks to the one behind the point.
        moved = made.upper + 1.0 if end == "lower" else made.lower - 1.0
        return replace(made, lower=moved, upper=moved)

    monkeypatch.setattr(Forecaster, "forecast", without_its_point)
    finding = verify_setup.check_models(tmp_path)
    assert not finding.is_ok
    assert "outside of its band" in finding.details[0]


def test_a_damaged_model_and_one_that_predicts_nonsense_are_named(detector_file: Path) -> None:
    model = load_model(detector_file)
    weights = {
        name: torch.full_like(value, torch.nan) for name, value in model.state_dict.items() if value.is_floating_point()
    }
    save_model(
        detector_file.with_name("nan.pth"),
        config=model.config,
        state_dict={**model.state_dict, **weights},
        meta=model.meta,
    )
    detector_file.with_name("cut.pth").write_bytes(detector_file.read_bytes()[:1000])
    save_model(detector_file.with_name("other.pth"), config={"kind": "toaster"}, state_dict={}, meta={})
    finding = verify_setup.check_models(detector_file.parent)
    assert not finding.is_ok
    assert "3 of 4" in finding.summary
    assert all(name in finding.way_out for name in ("cut.pth", "nan.pth", "other.pth"))
    assert "gat_demo.pth" not in finding.way_out


def save_agents(folder: Path, **rules: Rule) -> None:
    for name, rule in rules.items():
        rule_agent(rule, LEVELS).save(folder / f"{name}.pth", meta={})


def test_no_saved_agents_are_no_fault(tmp_path: Path) -> None:
    save_forecaster(tmp_path)
    for folder in (tmp_path, tmp_path / "gone"):
        ((name, check),) = verify_setup.agent_checks(folder)
        assert (name, check().is_ok, check().summary) == ("agents", True, "none saved yet")


def test_every_saved_agent_has_a_line_and_a_bad_one_is_a_cross(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_agents(tmp_path, autoscaling_good=threshold, autoscaling_idle=lambda *_: 0, autoscaling_upside_down=inverted)
    checks = dict(verify_setup.agent_checks(tmp_path))
    findings = {name: check() for name, check in checks.items()}
    assert {name: finding.is_ok for name, finding in findings.items()} == {
        "autoscaling_good": True,
        "autoscaling_idle": False,
        "autoscaling_upside_down": False,
    }
    assert findings["autoscaling_good"].summary.startswith("q_table for sinusoidal: reward +")
    assert findings["autoscaling_idle"].summary.startswith("constant policy: 100 % of ")
    assert "removes under load" in findings["autoscaling_upside_down"].summary
    assert findings["autoscaling_idle"].way_out == f"train it again, or delete: {tmp_path / 'autoscaling_idle.pth'}"
    assert main([], checks=checks.items()) == 1
    assert "2 of 3 checks failed: autoscaling_idle, autoscaling_upside_down" in capsys.readouterr().out
    assert verify_setup.check_models(tmp_path).summary == "none saved yet"


def test_a_damaged_agent_is_a_cross(tmp_path: Path) -> None:
    save_agents(tmp_path, autoscaling_cut=threshold)
    path = tmp_path / "autoscaling_cut.pth"
    path.write_bytes(path.read_bytes()[:2000])
    ((_, check),) = verify_setup.agent_checks(tmp_path)
    assert not check().is_ok
    assert "cut short" in check().summary


def test_an_agent_by_another_name_is_checked_among_the_models(tmp_path: Path) -> None:
    save_agents(tmp_path, mine=threshold, idle=lambda *_: 0)
    finding = verify_setup.check_models(tmp_path)
    assert not finding.is_ok
    assert "1 of 2 do not load and predict; constant policy" in finding.summary
    assert "mine.pth: q_table for sinusoidal: reward +" in finding.details[1]


def test_agents_saved_here_are_checked_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("saved_models").mkdir()
    save_agents(Path("saved_models"), autoscaling_good=threshold)
    names = [name for name, _ in verify_setup.all_checks()]
    assert names[-3:] == ["models", "autoscaling_good", "smoke run"]


def test_a_broken_environment_is_crosses_and_not_a_traceback() -> None:
    # -S leaves site-packages out: no third-party package can be imported.
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "verify_setup.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "✗ packages" in done.stdout
    assert verify_setup.SET_UP in done.stdout
    assert "Traceback" not in done.stderr


def test_help_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "verify_setup.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "--verbose" in done.stdout


@pytest.mark.slow
def test_the_smoke_run_works_and_leaves_nothing_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREDACT_DATA", "relative/folder")
    finding = verify_setup.check_smoke_run()
    assert finding.is_ok, finding.details
    assert "demo-simulated" in finding.summary
    assert not list(tmp_path.iterdir())
