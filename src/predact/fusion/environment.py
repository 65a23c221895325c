"""Fusion as a problem of choice: window by window, how far to trust the GAT and how far the VGAE.

An action is one of K weights alpha; alpha · gat + (1 - alpha) · vgae, the fused score, against a threshold decides.
Shapes: W windows, C windows of context, F state features, D observed numbers, K weights, N cursors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from predact.detection.metrics import decide
from predact.detection.prediction_cache import DETECTORS, WindowScores
from predact.fusion.rewards import Outcome, check_reward_name, reward_table
from predact.rl.environment import Transition
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object

__all__ = ["FusionConfig", "FusionEnvironment", "Observer", "decide", "fused_score", "fusion_weights", "observe"]

# Longer pauses have no recent past to look at: validation blocks are cut out of the training windows.
MAX_PAUSE_WINDOWS = 10
# Standardised features end here: a vehicle unlike any in training must not drive a policy where it never learned.
FEATURE_LIMIT = 5.0


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """What the fusion policies see, may choose, and are paid for.

    Args:
        num_actions: K fusion weights, evenly from 0 (all VGAE) to 1 (all GAT).
        context: Earlier windows of the same capture whose scores are observed.
        reward: `correctness`, `cost`, `confidence`, or the import path of one's own (see `fusion.rewards`).
        miss_cost: Of an attack window let through; `correctness` does not read it.
        false_alarm_cost: Of a benign window flagged; likewise.
        indifference: Predicted rewards this close are one; the weight nearest to the best fixed one is then taken.
        min_support: Training windows with both scores alike (in tenths) below which the best fixed weight is taken.
        state_features: Import paths of functions WindowScores -> (W, k), observed beside the built-in ones.
        num_envs: N cursors that walk the training windows side by side.
        num_folds: Parts of the training windows, each scored by detectors trained on the others.
    """

    num_actions: int = 21
    context: int = 4
    reward: str = "confidence"
    miss_cost: float = 1.0
    false_alarm_cost: float = 1.0
    indifference: float = 0.01
    min_support: int = 100
    state_features: tuple[str, ...] = ()
    num_envs: int = 256
    num_folds: int = 2

    def __post_init__(self) -> None:
        if self.num_actions < 2:
            raise ValueError(f"num_actions={self.num_actions} must be at least 2: all VGAE and all GAT")
        if self.context < 0:
            raise ValueError(f"context={self.context} must not be negative; 0 observes the window alone")
        if min(self.miss_cost, self.false_alarm_cost) <= 0:
            costs = f"miss_cost={self.miss_cost}, false_alarm_cost={self.false_alarm_cost}"
            raise ValueError(f"{costs} must be positive: a mistake that costs nothing is made every time")
        if self.indifference < 0:
            raise ValueError(f"indifference={self.indifference} must not be negative; 0 follows every difference")
        if self.min_support < 0:
            raise ValueError(f"min_support={self.min_support} must not be negative; 0 trusts the agent everywhere")
        check_reward_name(self.reward)
        if self.num_envs < 1:
            raise ValueError(f"num_envs={self.num_envs} must be at least 1")
        if self.num_folds < 2:
            raise ValueError(f"num_folds={self.num_folds} must be at least 2: no fold is scored by its own detectors")


def fusion_weights(num_actions: int) -> Tensor:
    """Return the (K,) weights alpha that the actions stand for."""
    return torch.linspace(0, 1, num_actions)


def fused_score(alpha: Tensor | float, scores: Tensor) -> Tensor:
    """Return alpha · gat + (1 - alpha) · vgae; `scores` is (..., 2), `alpha` broadcasts against (...)."""
    gat, vgae = scores.unbind(-1)
    return alpha * gat + (1 - alpha) * vgae


def run_starts(windows: WindowScores) -> Tensor:
    """Return (W,) for each window the index where its unbroken stretch of one capture begins; only the past decides."""
    is_first = torch.ones(len(windows), dtype=torch.bool)
    if len(windows) > 1:
        same_capture = windows.capture[1:] == windows.capture[:-1]
        step_s = windows.start_s[1:] - windows.start_s[:-1]
        usual_s = (windows.end_s - windows.start_s)[:-1].clone()
        usual_s[1:] = torch.where(same_capture[:-1], torch.maximum(usual_s[1:], step_s[:-1]), usual_s[1:])
        is_first[1:] = ~same_capture | (step_s > MAX_PAUSE_WINDOWS * usual_s)
    return torch.where(is_first, torch.arange(len(windows)), 0).cummax(0).values


def recent_scores(windows: WindowScores, context: int) -> Tensor:
    """Return (W, 2C): both scores 1, 2, ... C windows ago; before a stretch's start, those of its first window."""
    ago = torch.arange(1, context + 1)
    index = torch.maximum(torch.arange(len(windows)).unsqueeze(1) - ago, run_starts(windows).unsqueeze(1))  # (W, C)
    return windows.scores[index].flatten(1)


def observe(windows: WindowScores, config: FusionConfig) -> Tensor:
    """Return (W, D) float32, unscaled: both scores, those of the recent windows, the state features, the user's own."""
    own = [state_feature(path, windows) for path in config.state_features]
    observation = torch.cat(
        [windows.scores, recent_scores(windows, config.context), windows.features, *own], dim=1
    ).float()
    if broken := int((~observation.isfinite()).any(1).sum()):
        raise PredactError(f"scores or state features of {broken} of {len(windows)} windows are NaN or infinite")
    return observation


def state_feature(path: str, windows: WindowScores) -> Tensor:
    """Return the user's state feature at import path `path`, (W, k); any other shape is refused."""
    function: Callable[[WindowScores], Tensor] = load_object(path)
    feature = function(windows)
    if feature.ndim != 2 or len(feature) != len(windows):
        raise PredactError(
            f"state_features: {path} returned shape {tuple(feature.shape)}, not ({len(windows)}, k): one row a window"
        )
    return feature


@dataclass(frozen=True, eq=False)
class Observer:
    """What a policy sees of a window: `observe`, its features standardised by the training windows.

    Args:
        config: Names the parts of the observation.
        feature_names: F state features in the order learned.
        mean: (D,) 0 for the scores, which are on one scale already.
        scale: (D,) 1 likewise, and for a feature that never changed.
        typical: (F,) median of each state feature, for questions about the scores alone.
    """

    config: FusionConfig
    feature_names: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    typical: Tensor

    @classmethod
    def fit(cls, train: WindowScores, config: FusionConfig) -> Self:
        """Learn the features' scale from the training windows."""
        observation = observe(train, config)
        mean, scale = observation.mean(0), observation.std(0, correction=0)
        scale[scale < torch.finfo(scale.dtype).eps * (1 + mean.abs())] = 1
        num_scores = len(DETECTORS) * (1 + config.context)
        mean[:num_scores], scale[:num_scores] = 0, 1
        return cls(config, train.feature_names, mean, scale, train.features.float().median(0).values)

    def __call__(self, windows: WindowScores) -> Tensor:
        """Return (W, D) float32."""
        if windows.feature_names != self.feature_names:
            raise PredactError(
                f"the policy learned from the state features {', '.join(self.feature_names)}, "
                f"not from {', '.join(windows.feature_names)}; train it again"
            )
        return ((observe(windows, self.config) - self.mean) / self.scale).clamp(-FEATURE_LIMIT, FEATURE_LIMIT)

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"fusion": asdict(self.config), "feature_names": list(self.feature_names)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return {"observer.mean": self.mean, "observer.scale": self.scale, "observer.typical": self.typical}

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the observer that `settings` and `state_dict` came from."""
        config = FusionConfig(**saved_fields(settings["fusion"]))
        return cls(config, tuple(settings["feature_names"]), **part_of(state, "observer."))


def saved_fields(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's fields as its class takes them: files hold lists for tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries below `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class FusionEnvironment:
    """N cursors that walk the windows side by side, each its own segment; a step looks up what was computed before.

    An episode terminates where a recording ends or pauses, and is truncated at the end of the cursor's segment. A
    cursor walks its segment again and again: `steps_per_epoch` steps see every window, once where N divides W.

    Args:
        windows: Windows whose detectors were not trained on them; what the agent learns from.
        config: What is seen, chosen and paid.
        observer: Learned on the same windows.
        threshold: In (0, 1), chosen on validation; the one that is evaluated and served.
        device: Where the tables lie and the agent acts.
    """

    def __init__(
        self,
        windows: WindowScores,
        *,
        config: FusionConfig,
        observer: Observer,
        threshold: float,
        device: torch.device | str = "cpu",
    ) -> None:
        num_windows = len(windows)
        if num_windows == 0:
            raise PredactError("there are no training windows to learn fusion from; use longer captures")
        self._observation_of = observer(windows).to(device)  # (W, D)
        self._reward_of = reward_table(possible_outcomes(windows, config, threshold), config.reward).to(
            device
        )  # (W, K)
        self.num_envs = min(config.num_envs, num_windows)
        self.observation_dim = self._observation_of.shape[1]
        self.num_actions = config.num_actions
        self.steps_per_epoch = -(-num_windows // self.num_envs)
        bounds = torch.arange(self.num_envs + 1) * num_windows // self.num_envs
        self._first, self._last = bounds[:-1].to(device), (bounds[1:] - 1).to(device)
        stretch = run_starts(windows).to(device)
        self._is_end = torch.cat([stretch[1:] != stretch[:-1], stretch.new_ones(1, dtype=torch.bool)])
        self._cursor = self._first.clone()
        self.observation = self._observation_of[self._cursor]

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Put every cursor at a random window of its segment and return `observation`."""
        share = torch.rand(self.num_envs, generator=generator).to(self._first.device)
        length = self._last - self._first + 1
        return self._move(self._first + (share * length).long().clamp(max=length - 1))

    def step(self, action: Tensor) -> Transition:
        """Take action (N,) int64 in [0, K); `observation` is then that of the windows to act on next."""
        here = self._cursor
        terminated = self._is_end[here]
        at_segment_end = here == self._last
        # Nothing follows the end of a recording; its value is not asked for, so the window itself stands in.
        following = torch.where(terminated, here, here + 1)
        transition = Transition(
            next_observation=self._observation_of[following],
            reward=self._reward_of[here, action],
            terminated=terminated,
            truncated=at_segment_end & ~terminated,
        )
        self._move(torch.where(at_segment_end, self._first, here + 1))
        return transition

    def state_dict(self) -> dict[str, Tensor]:
        """Return the cursors; everything else follows from windows and config."""
        return {"cursor": self._cursor.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state_dict` was taken."""
        cursor = state["cursor"].to(self._first.device)
        if cursor.shape != self._first.shape or bool(((cursor < self._first) | (cursor > self._last)).any()):
            raise PredactError(
                f"the checkpoint walks other windows than these {self._reward_of.shape[0]}; train from the start"
            )
        self._move(cursor)

    def _move(self, cursor: Tensor) -> Tensor:
        self._cursor = cursor
        self.observation = self._observation_of[cursor]
        return self.observation


def possible_outcomes(windows: WindowScores, config: FusionConfig, threshold: float) -> Outcome:
    """Return what every window comes to under every fusion weight."""
    if not 0 < threshold < 1:
        raise PredactError(
            f"threshold={threshold} is not between 0 and 1, as the scores are; train the detectors longer"
        )
    alpha = fusion_weights(config.num_actions)
    return Outcome(
        windows=windows,
        alpha=alpha,
        fused=fused_score(alpha, windows.scores.unsqueeze(1)),
        threshold=threshold,
        miss_cost=config.miss_cost,
        false_alarm_cost=config.false_alarm_cost,
    )
