"""Deep Q-network for discrete actions, after Mnih et al. (2015), https://doi.org/10.1038/nature14236.

With double Q-learning (van Hasselt et al., 2016, https://arxiv.org/abs/1509.06461), dueling heads (Wang et al., 2016,
https://arxiv.org/abs/1511.06581) and n-step returns (Hessel et al., 2018, https://arxiv.org/abs/1710.02298).
Departs from the papers: Adam for RMSProp, and a multilayer perceptron, since observations here are short vectors.

Shapes: B transitions, D observed values, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple, Self, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from predact.rl.acting import masked
from predact.rl.replay import Batch
from predact.rl.schedules import SCHEDULES, ScheduleName, resolved

LossName = Literal["huber", "mse"]


@dataclass(frozen=True, kw_only=True)
class DQNConfig:
    """Everything that can be chosen about the agent and its training.

    Args:
        epochs: passes of `steps_per_epoch` steps, where the trainer names no number of its own.
        hidden: widths of the hidden layers.
        dueling: split the last layer into a state value and advantages.
        double: choose the next action by the online network, value it by the target network.
        n_step: rewards summed before bootstrapping.
        discount: γ; 0 makes it a contextual bandit and skips everything about the next state.
        loss: of the temporal-difference error; `huber` is linear beyond 1.
        learning_rate: of Adam.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        batch_size: transitions an update.
        buffer_size: transitions kept, over all environments.
        learning_starts: environment steps before the first update.
        steps_per_update: environment steps for each update.
        rollout_steps: steps of all environments before their updates.
        rollouts_per_training_step: rollouts, each with its updates, in one `training_step`. Lightning's bookkeeping of
            one costs about as much as an update, so that few environments want many.
        target_update: copy the network every `target_every_updates`, or move by `target_tau` each update.
        target_every_updates: with `hard`.
        target_tau: with `soft`, the share of the online network in (0, 1].
        epsilon_schedule: how the share of random actions falls.
        epsilon_start: at the first step.
        epsilon_end: from `epsilon_decay_steps` on.
        epsilon_decay_steps: environment steps, over all environments; None for all of the training, see `over`.
    """

    epochs: int = 50
    hidden: tuple[int, ...] = (64, 64)
    dueling: bool = False
    double: bool = True
    n_step: int = 1
    discount: float = 0.99
    loss: LossName = "huber"
    learning_rate: float = 1e-3
    max_grad_norm: float | None = 10.0
    batch_size: int = 128
    buffer_size: int = 100_000
    learning_starts: int = 128
    steps_per_update: int = 32
    rollout_steps: int = 1
    rollouts_per_training_step: int = 1
    target_update: Literal["hard", "soft"] = "hard"
    target_every_updates: int = 250
    target_tau: float = 0.005
    epsilon_schedule: ScheduleName = "linear"
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_decay_steps: int | None = 50_000

    def __post_init__(self) -> None:
        counts = ("epochs", "n_step", "batch_size", "buffer_size", "steps_per_update", "rollout_steps")
        for name in (*counts, "rollouts_per_training_step", "target_every_updates"):
            _refuse_unless(getattr(self, name) >= 1, name, getattr(self, name), "be at least 1")
        steps = self.epsilon_decay_steps
        _refuse_unless(steps is None or steps >= 1, "epsilon_decay_steps", steps, "be at least 1 or None")
        _refuse_unless(min(self.hidden, default=1) >= 1, "hidden", self.hidden, "hold positive widths")
        _refuse_unless(0 <= self.discount <= 1, "discount", self.discount, "lie in [0, 1]")
        _refuse_unless(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "be positive")
        norm = self.max_grad_norm
        _refuse_unless(norm is None or norm > 0, "max_grad_norm", norm, "be positive or None")
        _refuse_unless(self.learning_starts >= 0, "learning_starts", self.learning_starts, "not be negative")
        _refuse_unless(0 < self.target_tau <= 1, "target_tau", self.target_tau, "lie in (0, 1]")
        start, end = self.epsilon_start, self.epsilon_end
        _refuse_unless(0 <= end <= 1, "epsilon_end", end, "lie in [0, 1]")
        _refuse_unless(end <= start <= 1, "epsilon_start", start, f"lie in [epsilon_end, 1] = [{end}, 1]")
        _refuse_unless(
            end > 0 or self.epsilon_schedule != "exponential",
            "epsilon_end",
            end,
            "be positive with epsilon_schedule=exponential, which never reaches 0",
        )

    def epsilon(self, env_steps: int) -> float:
        """Return the share of random actions after `env_steps` environment steps."""
        schedule = SCHEDULES[self.epsilon_schedule]
        steps = resolved(self.epsilon_decay_steps, name="epsilon_decay_steps")
        return schedule(env_steps, start=self.epsilon_start, end=self.epsilon_end, decay_steps=steps)

    def over(self, timesteps: int) -> Self:
        """Return the config of a training of so many environment steps: what lasts until its end is given a number."""
        is_given = self.epsilon_decay_steps is not None
        return self if is_given else replace(self, epsilon_decay_steps=timesteps)


def _refuse_unless(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value} must {rule}")


class QNetwork(nn.Module):
    """Values of all actions in a state.

    Args:
        config: `hidden` and `dueling` are used.
        observation_dim: D.
        num_actions: A.
    """

    def __init__(self, config: DQNConfig, *, observation_dim: int, num_actions: int) -> None:
        super().__init__()
        widths = (observation_dim, *config.hidden)
        layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_actions)
        self.value = nn.Linear(widths[-1], 1) if config.dueling else None

    def forward(self, observation: Tensor) -> Tensor:
        """Map (..., D) to (..., A)."""
        hidden = self.trunk(observation)
        if self.value is None:
            return self.head(hidden)  # type: ignore[no-any-return]
        return dueling(self.value(hidden), self.head(hidden))

    @torch.no_grad()
    def act(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the greedy actions (...,) int64 of those that `mask` (..., A) allows; of equal values the first."""
        return masked(self(observation), mask).argmax(dim=-1)

    @property
    def ranking(self) -> tuple[nn.Module, ...]:
        """The layers whose output ranks the actions as the values do: a state's value is the same for all of them."""
        return (*self.trunk, self.head)


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Join (..., 1) state values and (..., A) advantages, whose mean is taken off: Wang et al. (2016), eq. 9."""
    return value + advantage - advantage.mean(dim=-1, keepdim=True)


def q_target(target_next: Tensor, returns: Tensor, terminated: Tensor, *, discount: float | Tensor) -> Tensor:
    """Q-learning target, Mnih et al. (2015), algorithm 1. A truncated episode still bootstraps.

    Args:
        target_next: (B, A) values of the next state by the target network.
        returns: (B,) discounted rewards.
        terminated: (B,) bool.
        discount: γ to the number of rewards summed; a number or (B,).
    """
    return returns + discount * ~terminated * target_next.amax(dim=1)


def double_q_target(
    online_next: Tensor, target_next: Tensor, returns: Tensor, terminated: Tensor, *, discount: float | Tensor
) -> Tensor:
    """Double-Q target, van Hasselt et al. (2016), eq. 4: the online network (B, A) chooses, the target one values."""
    chosen = online_next.argmax(dim=1, keepdim=True)
    return returns + discount * ~terminated * target_next.gather(1, chosen).squeeze(1)


def td_loss(taken: Tensor, target: Tensor, *, kind: LossName) -> Tensor:
    """Mean loss of the temporal-difference errors; `huber` is the error clipping of Mnih et al. (2015), "training"."""
    match kind:
        case "huber":
            return functional.huber_loss(taken, target)
        case "mse":
            return functional.mse_loss(taken, target)
        case _:
            assert_never(kind)


class DQNLoss(NamedTuple):
    """The loss of a batch, and the values (B,) of the actions taken, detached."""

    loss: Tensor
    taken: Tensor


def dqn_loss(online: QNetwork, target: QNetwork, batch: Batch, *, config: DQNConfig) -> DQNLoss:
    """Loss of a sampled batch; with γ = 0 neither network sees the next state."""
    taken = online(batch.observation).gather(1, batch.action.unsqueeze(1)).squeeze(1)
    moved_to = bootstrapped(online, target, batch, config=config)
    return DQNLoss(td_loss(taken, moved_to, kind=config.loss), taken.detach())


@torch.no_grad()
def bootstrapped(online: QNetwork, target: QNetwork, batch: Batch, *, config: DQNConfig) -> Tensor:
    """Return what the values of the actions taken are moved to, (B,)."""
    if config.discount == 0:
        return batch.returns
    target_next = target(batch.next_observation)
    if not config.double:
        target_next = masked(target_next, batch.next_mask)
        return q_target(target_next, batch.returns, batch.terminated, discount=batch.discount)
    online_next = masked(online(batch.next_observation), batch.next_mask)
    return double_q_target(online_next, target_next, batch.returns, batch.terminated, discount=batch.discount)
