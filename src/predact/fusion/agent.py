"""The deployed fusion: both detectors, the policy that weighs them, the threshold; one self-contained file.

Plain torch, so that the service and `predact detect` run without Lightning.
Shapes: G windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs
from predact.detection.detectors import Detector
from predact.detection.metrics import decide
from predact.detection.prediction_cache import WindowScores, score_windows
from predact.fusion.environment import part_of
from predact.fusion.policies import FusionPolicy, load_policy
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError

KIND = "fusion_agent"


@dataclass(frozen=True, eq=False, kw_only=True)
class Verdict:
    """What the agent says about the windows of one capture.

    Args:
        score: (G,) fused scores in [0, 1].
        is_attack: (G,) bool, scores above the agent's threshold.
        windows: both detectors' scores, with times.
    """

    score: Tensor
    is_attack: Tensor
    windows: WindowScores


@dataclass(frozen=True, eq=False, kw_only=True)
class FusionAgent:
    """Scores captures with both detectors and fuses the scores."""

    gat: Detector
    vgae: Detector
    policy: FusionPolicy
    window: WindowConfig

    def detect(self, frames: Frames, *, name: str = "capture") -> Verdict:
        """Cut a capture into windows and judge each; its first seconds calibrate, so give it whole."""
        return self.judge(build_graphs(frames, self.window, name=name))

    def judge(self, graphs: PackedGraphs) -> Verdict:
        """Judge the graphs of whole captures; the same graphs give the same verdict."""
        windows = score_windows(graphs, self.gat, self.vgae)
        score = self.policy.fuse(windows)
        return Verdict(score=score, is_attack=decide(score, self.policy.threshold), windows=windows)

    def plain_config(self) -> dict[str, Any]:
        """Return everything that is not a tensor."""
        return {
            "kind": KIND,
            "gat": self.gat.plain_config(),
            "vgae": self.vgae.plain_config(),
            "policy": self.policy.settings(),
            "window": asdict(self.window),
        }

    def save(self, path: Path, *, meta: Mapping[str, Any]) -> str:
        """Write the model file atomically and return the hash of its content."""
        parts = {"gat": self.gat.state_dict(), "vgae": self.vgae.state_dict(), "policy": self.policy.state_dict()}
        state = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return save_model(path, config=self.plain_config(), state_dict=state, meta=meta)

    @classmethod
    def load(cls, path: Path) -> FusionAgent:
        """Read a model file that `save` wrote.

        Raises:
            PredactError: it is absent, damaged, or of another kind or version.
        """
        model = load_model(path)
        if model.config.get("kind") != KIND:
            raise PredactError(f"{path} holds {model.config.get('kind')!r}, not a fusion agent; name another model")
        try:
            window = WindowConfig(**model.config["window"])
            gat, vgae, policy = (model.config[part] for part in ("gat", "vgae", "policy"))
        except (KeyError, TypeError, ValueError) as error:
            raise PredactError(f"{path} was written by another version ({error}); train it again") from error
        return cls(
            gat=Detector.from_state(gat, part_of(model.state_dict, "gat."), source=str(path)),
            vgae=Detector.from_state(vgae, part_of(model.state_dict, "vgae."), source=str(path)),
            policy=load_policy(policy, part_of(model.state_dict, "policy.")),
            window=window,
        )
