"""The deployed agent: one verdict, whenever and wherever it is asked; one file, and no other file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.detection.detectors import Detector
from predact.detection.prediction_cache import FEATURE_NAMES, score_windows
from predact.fusion.agent import FusionAgent
from predact.fusion.environment import FusionConfig, Observer
from predact.fusion.weighting import DQNPolicy, FixedAlpha, count_windows
from predact.rl.dqn import DQNConfig, QNetwork
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError
from tests.detection.tiny import GAT_CONFIG, REFERENCE_S, VGAE_CONFIG, capture, capture_graphs, renamed

CAPTURE = "fuzzing-B"


def detectors() -> dict[str, Detector]:
    """Detectors with random weights: what they say is nonsense, and always the same."""
    graphs = capture_graphs("attack-free-B", CAPTURE)
    torch.manual_seed(0)
    gat = Detector("gat", GAT_CONFIG, reference_s=REFERENCE_S)
    gat.fit_scaling(gat.columns_of(graphs))
    vgae = Detector("vgae", VGAE_CONFIG, reference_s=REFERENCE_S)
    vgae.fit_error_scale(vgae.columns_of(graphs), torch.nonzero(graphs.y == 0).squeeze(1))
    return {"gat": gat, "vgae": vgae}


def agent_of(policy: str) -> FusionAgent:
    both, fixed = detectors(), FixedAlpha(alpha=0.3, threshold=0.45)
    if policy == "fixed":
        return FusionAgent(**both, policy=fixed, window=WindowConfig())
    windows = score_windows(capture_graphs(CAPTURE), **both)
    observer, config = Observer.fit(windows, FusionConfig(min_support=1)), DQNConfig(hidden=(8,))
    network = QNetwork(config, observation_dim=len(observer.mean), num_actions=21)
    seen = count_windows(windows.scores[::2])
    learned = DQNPolicy(network=network, agent=config, observer=observer, fixed=fixed, seen=seen)
    return FusionAgent(**both, policy=learned, window=WindowConfig())


@pytest.fixture(scope="module", params=["fixed", "dqn"])
def agent(request: pytest.FixtureRequest) -> FusionAgent:
    return agent_of(request.param)


@pytest.fixture
def path(agent: FusionAgent, tmp_path: Path) -> Path:
    agent.save(tmp_path / "agent.pth", meta={"seed": 0})
    return tmp_path / "agent.pth"


def test_the_same_capture_gets_the_same_verdict_twice(agent: FusionAgent) -> None:
    first = agent.detect(capture(CAPTURE))
    agent.gat.network.train()
    agent.vgae.network.train()
    torch.manual_seed(99)
    second = agent.detect(capture(CAPTURE))
    assert torch.equal(first.score, second.score) and torch.equal(first.is_attack, second.is_attack)
    assert first.score.std() > 0 and first.is_attack.any() and not first.is_attack.all()


def test_the_verdict_is_the_policys_on_both_detectors_scores() -> None:
    agent, graphs = agent_of("fixed"), capture_graphs(CAPTURE)
    verdict = agent.judge(graphs)
    expected = 0.3 * agent.gat.score(graphs).score + 0.7 * agent.vgae.score(graphs).score
    assert torch.allclose(verdict.score, expected)
    assert torch.equal(verdict.is_attack, verdict.score > 0.45)
    assert verdict.windows.feature_names == FEATURE_NAMES
    assert torch.equal(verdict.windows.start_s, graphs.start_s)


def test_a_capture_is_cut_as_the_agent_was_trained(agent: FusionAgent) -> None:
    frames = capture(CAPTURE)
    assert torch.equal(agent.detect(frames).score, agent.judge(build_graphs(frames, WindowConfig())).score)
    denser = replace(agent, window=WindowConfig(stride=50))
    assert len(denser.detect(frames).score) == (len(frames) - 100) // 50 + 1
    assert denser.detect(frames, name="drive").windows.capture_names == ("drive",)


def test_neither_labels_nor_ids_reach_the_verdict(agent: FusionAgent) -> None:
    graphs = capture_graphs(CAPTURE)
    other = renamed(replace(graphs, y=1 - graphs.y))
    assert torch.equal(agent.judge(other).score, agent.judge(graphs).score)


def test_a_capture_shorter_than_a_window_is_refused(agent: FusionAgent) -> None:
    with pytest.raises(PredactError, match="capture drive has 99 frames, fewer than one window of 100"):
        agent.detect(capture(CAPTURE)[:99], name="drive")


# The file


def test_an_agent_read_back_gives_the_same_verdict(agent: FusionAgent, path: Path) -> None:
    restored, again = FusionAgent.load(path), FusionAgent.load(path)
    frames = capture(CAPTURE)
    expected = agent.detect(frames)
    for each in (restored, again):
        verdict = each.detect(frames)
        assert torch.equal(verdict.score, expected.score) and torch.equal(verdict.is_attack, expected.is_attack)
    assert restored.plain_config() == agent.plain_config()
    assert restored.policy.threshold == agent.policy.threshold


def test_the_file_holds_tensors_and_plain_data_only(path: Path) -> None:
    data = torch.load(path, weights_only=True)
    assert data["config"]["kind"] == "fusion_agent" and data["meta"] == {"seed": 0}
    assert all(isinstance(value, torch.Tensor) for value in data["state_dict"].values())
    assert {name.partition(".")[0] for name in data["state_dict"]} == {"gat", "vgae", "policy"}


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from predact.canbus.frames import Frames
from predact.fusion.agent import FusionAgent

arrays = np.load("frames.npz")
verdict = FusionAgent.load(Path("agent.pth")).detect(Frames(**arrays))
np.save("score.npy", verdict.score.numpy())
print(sorted({"lightning", "pytorch_lightning", "hydra", "omegaconf", "sklearn"} & set(sys.modules)))
"""


def test_another_process_gives_the_same_verdict_without_the_training_framework(tmp_path: Path) -> None:
    agent, frames = agent_of("dqn"), capture(CAPTURE)
    agent.save(tmp_path / "agent.pth", meta={})
    names = ("timestamp", "id", "payload", "length", "label")
    np.savez(tmp_path / "frames.npz", **{name: getattr(frames, name) for name in names})
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.strip("[]\n'").split("', '")) - {""}
    assert not loaded & {"lightning", "pytorch_lightning", "hydra", "omegaconf"}
    assert np.array_equal(np.load(tmp_path / "score.npy"), agent.detect(frames).score.numpy())


def test_a_detector_alone_is_no_agent(tmp_path: Path) -> None:
    gat = detectors()["gat"]
    save_model(tmp_path / "gat.pth", config=gat.plain_config(), state_dict=gat.state_dict(), meta={})
    with pytest.raises(PredactError, match=r"gat\.pth holds 'gat', not a fusion agent; name another model"):
        FusionAgent.load(tmp_path / "gat.pth")


def test_foreign_files_are_refused_in_one_line(path: Path) -> None:
    whole = path.read_bytes()
    torch.save({"layer.weight": torch.zeros(2)}, path.with_name("bare.pth"))
    path.with_name("text.pth").write_text("not a model")
    path.with_name("cut.pth").write_bytes(whole[: len(whole) // 2])
    path.with_name("empty.pth").write_bytes(b"")
    torch.save({"frames": Frames.empty()}, path.with_name("pickle.pth"))
    messages = {
        "bare.pth": "is not a predact model but a bare state_dict",
        "text.pth": "is no model file",
        "cut.pth": "is no model file, or cut short",
        "empty.pth": "is no model file",
        "pickle.pth": "holds more than tensors and plain data and is not read",
        "absent.pth": "no model at",
    }
    for name, message in messages.items():
        with pytest.raises(PredactError, match=message) as caught:
            FusionAgent.load(path.with_name(name))
        assert "\n" not in str(caught.value) and name in str(caught.value)


def changed(path: Path, part: str, **fields: Any) -> Path:
    """Save the agent again with some fields of its config changed; None takes a field away."""
    model = load_model(path)
    config = dict(model.config)
    config[part] = {name: value for name, value in {**config[part], **fields}.items() if value is not None}
    save_model(path, config=config, state_dict=model.state_dict, meta=model.meta)
    return path


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("window", {"overlap": 3}, "was written by another version .*overlap"),
        ("window", {"size": 1}, "was written by another version .*window.size=1"),
        ("gat", {"head_width": 3}, "holds 'layers.0.att' of shape"),
        ("gat", {"dropout_rate": 0.5}, "was written by another version .*dropout_rate"),
        ("vgae", {"latent_dim": 5}, "holds .* of shape .*, VGAE has"),
        ("vgae", {"kind": "lstm"}, "holds no detector"),
        ("policy", {"policy": "fusion_magic"}, "policy='fusion_magic' is not a fusion policy"),
    ],
)
def test_an_agent_of_another_architecture_is_refused_in_one_line(
    path: Path, part: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PredactError, match=message) as caught:
        FusionAgent.load(changed(path, part, **fields))
    assert "\n" not in str(caught.value)


def test_an_agent_without_a_part_is_of_another_version(path: Path) -> None:
    model = load_model(path)
    config = {name: value for name, value in model.config.items() if name != "vgae"}
    save_model(path, config=config, state_dict=model.state_dict, meta={})
    with pytest.raises(PredactError, match=r"was written by another version .*vgae"):
        FusionAgent.load(path)


def test_a_save_that_fails_leaves_the_old_agent(agent: FusionAgent, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError, match="plain data only"):
        agent.save(path, meta={"when": np.datetime64("2026-01-01")})
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["agent.pth"]
