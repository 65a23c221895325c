"""What a choice of the fusion weight is worth: the built-in rewards, and one's own by import path.

A reward sees every window under every weight at once and returns a table, so that the environment's step is a look-up.
Shapes: W windows, K fusion weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from predact.detection.metrics import decide
from predact.detection.prediction_cache import WindowScores
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What every window comes to under every fusion weight.

    Args:
        windows: Scores, features, labels, captures and times of the windows, in the order of captures and of time.
        alpha: (K,) the fusion weights that an action can choose.
        fused: (W, K) alpha · gat + (1 - alpha) · vgae, in [0, 1].
        threshold: In (0, 1); above it a fused score is an attack.
        miss_cost: Of an attack window that is let through.
        false_alarm_cost: Of a benign window that is flagged.
    """

    windows: WindowScores
    alpha: Tensor
    fused: Tensor
    threshold: float
    miss_cost: float
    false_alarm_cost: float

    @property
    def is_attack(self) -> Tensor:
        """(W, 1) bool, the truth."""
        return self.windows.label.bool().unsqueeze(1)

    @property
    def decision(self) -> Tensor:
        """(W, K) bool, by the rule that is evaluated and served."""
        return decide(self.fused, self.threshold)

    @property
    def cost(self) -> Tensor:
        """(W, 1) what a mistake on the window costs."""
        return torch.where(self.is_attack, self.miss_cost, self.false_alarm_cost)


Reward = Callable[[Outcome], Tensor]


def correctness(outcome: Outcome) -> Tensor:
    """Return 1 for a right decision, -1 for a wrong one."""
    return torch.where(outcome.decision == outcome.is_attack, 1.0, -1.0)


def cost(outcome: Outcome) -> Tensor:
    """Return 0 for a right decision, minus the cost of the miss or the false alarm for a wrong one."""
    return torch.where(outcome.decision == outcome.is_attack, 0.0, -outcome.cost)


def confidence(outcome: Outcome) -> Tensor:
    """Return how far the fused score lies on the right side, as a share of the room there is, times the window's cost.

    Of two weights that are both right, it prefers the more certain one. `correctness` and `cost` pay both alike: where
    validation F1 is near 1 they leave nearly every window without a preference, and the weight learned there is chance.
    """
    margin = outcome.fused - outcome.threshold
    share = margin / torch.where(margin > 0, 1 - outcome.threshold, outcome.threshold)  # in [-1, 1]
    return torch.where(outcome.is_attack, share, -share) * outcome.cost


REWARDS: dict[str, Reward] = {"correctness": correctness, "cost": cost, "confidence": confidence}


def check_reward_name(name: str) -> None:
    """Raise ValueError if `name` is neither a built-in reward nor looks like an import path."""
    if name not in REWARDS and "." not in name:
        close = get_close_matches(name, REWARDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose {', '.join(REWARDS)} or the import path of your own"
        raise ValueError(f"reward={name!r} is unknown; {hint}")


def reward_table(outcome: Outcome, name: str) -> Tensor:
    """Return (W, K) float32: what each weight is worth on each window by the reward called `name`.

    Raises:
        PredactError: A reward of one's own returns another shape, or a value that is not finite.
    """
    reward: Reward = REWARDS.get(name) or load_object(name)
    table = torch.as_tensor(reward(outcome), dtype=torch.float32)
    if table.shape != outcome.fused.shape:
        raise PredactError(
            f"reward={name} returned shape {tuple(table.shape)}, not {tuple(outcome.fused.shape)}: "
            "a row for each window, a column for each fusion weight"
        )
    if broken := int((~table.isfinite()).sum()):
        raise PredactError(f"reward={name} returned {broken} values that are NaN or infinite")
    return table
