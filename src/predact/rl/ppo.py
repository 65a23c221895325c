"""Proximal policy optimisation for discrete actions, after Schulman et al. (2017), https://arxiv.org/abs/1707.06347.

With generalised advantage estimation (Schulman et al., 2016, https://arxiv.org/abs/1506.02438).
Departs from the papers: an episode that a time limit cuts bootstraps from the state reached (Pardo et al., 2018,
https://arxiv.org/abs/1712.00378); actor and critic share no layer.

Shapes: T steps, N environments, B samples, D observed values, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from predact.rl.acting import masked
from predact.rl.networks import ActivationName, ObservationNormalizer, orthogonal_layers
from predact.rl.schedules import linear, resolved

ADVANTAGE_EPSILON = 1e-8
# A nearly uniform first policy: Andrychowicz et al. (2021), https://arxiv.org/abs/2006.05990, section 3.2.
ACTOR_GAIN, CRITIC_GAIN = 0.01, 1.0
# An update may move the policy half as far again as asked for before the rest of the rollout's updates is dropped.
KL_SLACK = 1.5


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Everything that can be chosen about the agent and its training.

    Args:
        epochs: passes of `steps_per_epoch` steps, where the trainer names no number of its own.
        hidden: widths of the hidden layers, of actor and critic alike.
        activation: between layers.
        rollout_steps: steps of all environments between updates, in one `training_step`.
        batch_size: samples an update; what does not fill a batch is left out, other samples in each pass.
        update_epochs: passes over a rollout.
        learning_rate: of Adam, at first.
        learning_rate_end: from `learning_rate_decay_steps` on, falling in equal differences; None keeps it as it is.
        learning_rate_decay_steps: environment steps, over all environments; None for all of the training, see `over`.
        discount: γ.
        gae_lambda: λ; 0 trusts the critic, 1 the rewards.
        clip: how far the probability of an action may move, as a share.
        value_clip: how far a value may move in the updates of a rollout; None lets it.
        value_weight: of the critic's loss.
        entropy_weight: of the policy's entropy, which is paid for exploring.
        normalize_advantages: to mean 0 and deviation 1, batch by batch.
        normalize_observations: by mean and deviation of all seen; kept in the network.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        target_kl: ends a rollout's updates where the policy has moved further than 1.5 times this; None never does.
    """

    epochs: int = 50
    hidden: tuple[int, ...] = (64, 64)
    activation: ActivationName = "tanh"
    rollout_steps: int = 64
    batch_size: int = 256
    update_epochs: int = 6
    learning_rate: float = 3e-3
    learning_rate_end: float | None = 0.0
    learning_rate_decay_steps: int | None = 100_000
    discount: float = 0.98
    gae_lambda: float = 0.9
    clip: float = 0.2
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    normalize_advantages: bool = True
    normalize_observations: bool = False
    max_grad_norm: float | None = 0.5
    target_kl: float | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "rollout_steps", "batch_size", "update_epochs")
        self._check(counts, lambda value: value >= 1, "be at least 1")
        self._check(("learning_rate_decay_steps",), lambda value: value is None or value >= 1, "be at least 1 or None")
        self._check(("hidden",), lambda widths: min(widths, default=1) >= 1, "hold positive widths")
        self._check(("discount", "gae_lambda"), lambda value: 0 <= value <= 1, "lie in [0, 1]")
        self._check(("learning_rate", "clip"), lambda value: 0 < value < float("inf"), "be positive")
        limits = ("value_clip", "max_grad_norm", "target_kl")
        self._check(limits, lambda value: value is None or value > 0, "be positive or None")
        self._check(("learning_rate_end",), lambda value: value is None or value >= 0, "not be negative")
        self._check(("value_weight", "entropy_weight"), lambda value: value >= 0, "not be negative")

    def _check(self, names: Sequence[str], holds: Callable[[Any], bool], rule: str) -> None:
        for name in names:
            if not holds(value := getattr(self, name)):
                raise ValueError(f"{name}={value} must {rule}")

    def learning_rate_at(self, env_steps: int) -> float:
        """Return Adam's learning rate after `env_steps` environment steps."""
        if self.learning_rate_end is None:
            return self.learning_rate
        return linear(
            env_steps,
            start=self.learning_rate,
            end=self.learning_rate_end,
            decay_steps=resolved(self.learning_rate_decay_steps, name="learning_rate_decay_steps"),
        )

    def over(self, timesteps: int) -> Self:
        """Return the config of a training of so many environment steps: what lasts until its end is given a number."""
        is_given = self.learning_rate_decay_steps is not None
        return self if is_given else replace(self, learning_rate_decay_steps=timesteps)


class PolicyAndValue(NamedTuple):
    """What the network says of states.

    Args:
        logits: (..., A), of the actions' probabilities.
        value: (...,), the discounted rewards expected.
    """

    logits: Tensor
    value: Tensor


class PPONetwork(nn.Module):
    """Actor and critic.

    Args:
        config: `hidden`, `activation` and `normalize_observations` are used.
        observation_dim: D.
        num_actions: A.
    """

    def __init__(self, config: PPOConfig, *, observation_dim: int, num_actions: int) -> None:
        super().__init__()
        widths = (observation_dim, *config.hidden)
        self.actor = orthogonal_layers((*widths, num_actions), activation=config.activation, last_gain=ACTOR_GAIN)
        self.critic = orthogonal_layers((*widths, 1), activation=config.activation, last_gain=CRITIC_GAIN)
        self.normalizer = ObservationNormalizer(observation_dim) if config.normalize_observations else None

    def scaled(self, observation: Tensor) -> Tensor:
        """Return observations as actor and critic take them."""
        return observation if self.normalizer is None else self.normalizer(observation)

    def judge(self, scaled: Tensor) -> PolicyAndValue:
        """Map (..., D) observations that are scaled already to logits (..., A) and values (...,)."""
        return PolicyAndValue(self.actor(scaled), self.critic(scaled).squeeze(-1))

    def forward(self, observation: Tensor) -> PolicyAndValue:
        """Map (..., D) to logits (..., A) and values (...,)."""
        return self.judge(self.scaled(observation))

    @torch.no_grad()
    def act(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the most probable actions (...,) int64 of those that `mask` (..., A) allows."""
        return masked(self.actor(self.scaled(observation)), mask).argmax(dim=-1)


def generalized_advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation, Schulman et al. (2016), eq. 16: (T, N).

    A truncated episode still bootstraps, and nothing flows from one episode into the one before.

    Args:
        reward: (T, N), likewise all others; `terminated` and `truncated` bool.
        value: of the states acted in.
        next_value: of the states reached, before any reset.
    """
    error = reward + discount * next_value * ~terminated - value
    carried = (discount * gae_lambda) * (~(terminated | truncated)).to(value.dtype)
    advantage = torch.zeros_like(value[0])
    advantages = []
    for step_error, step_carried in zip(reversed(error.unbind()), reversed(carried.unbind()), strict=True):
        advantage = torch.addcmul(step_error, step_carried, advantage)
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


def normalized_batches(advantage: Tensor, batch_size: int) -> Tensor:
    """Shift and scale each consecutive batch of (num_batches * batch_size,) to mean 0 and deviation 1."""
    if batch_size == 1:
        return advantage
    batches = advantage.view(-1, batch_size)
    deviation, mean = torch.std_mean(batches, dim=1, keepdim=True)
    return ((batches - mean) / (deviation + ADVANTAGE_EPSILON)).flatten()


def log_probability(logits: Tensor, action: Tensor) -> Tensor:
    """Return the log-probabilities (B,) of actions (B,) under logits (B, A)."""
    return -functional.cross_entropy(logits, action, reduction="none")


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy (...,) of the policy of logits (..., A), in nats."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def clipped_policy_loss(log_ratio: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """Clipped surrogate objective, Schulman et al. (2017), eq. 7, its sign turned; both (B,).

    What the ratio is clipped to matters only where the minimum takes it: 1 + clip with an advantage, 1 - clip with a
    disadvantage (Achiam, 2018, https://spinningup.openai.com, PPO), which knows no gradient.
    """
    limit = torch.add(advantage, advantage.abs(), alpha=clip)
    return -torch.min(advantage * log_ratio.exp(), limit).mean()


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, *, clip: float | None) -> Tensor:
    """Mean squared error of the values (B,); with `clip` the worse of it and that of the value moved no further.

    The clipped form is that of the code of Schulman et al. (2017); the paper does not have it.
    """
    if clip is None:
        return functional.mse_loss(value, target)
    near = old_value + (value - old_value).clamp(-clip, clip)
    return torch.max((value - target).square(), (near - target).square()).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Estimate the KL divergence from the old policy to the new from the log-ratios (B,) of the old one's actions.

    Unbiased and never negative: Schulman (2020), http://joschu.net/blog/kl-approx.html, k3.
    """
    return (log_ratio.exp() - 1 - log_ratio).mean()


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Return the share of the targets' variance (B,) that the values (B,) explain; 1 at best, 0 for a constant."""
    left = (target - value).var(correction=0)
    return 1 - left / (target.var(correction=0) + ADVANTAGE_EPSILON)


class Samples(NamedTuple):
    """Steps of a rollout, as an update takes them.

    Args:
        observation: (B, D), scaled.
        action: (B,) int64.
        log_probability: (B,) of the action, when it was taken.
        value: (B,), likewise.
        advantage: (B,).
        target: (B,) what the critic moves to.
        mask: (B, A) bool, the actions allowed; None where all always are.
    """

    observation: Tensor
    action: Tensor
    log_probability: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    mask: Tensor | None = None

    def select(self, index: Tensor) -> Samples:
        """Return the samples of these numbers, in their order."""
        return Samples(*(column.index_select(0, index) for column in self if column is not None))

    def split(self, batch_size: int) -> Iterator[Samples]:
        """Yield consecutive parts of `batch_size`, which must divide B."""
        if len(self.action) == batch_size:
            return iter((self,))
        return map(Samples, *(torch.split(column, batch_size) for column in self if column is not None))


class PPOLoss(NamedTuple):
    """The loss of a batch and its parts, and the log-ratios (B,) of new to old probabilities; only `loss` trains."""

    loss: Tensor
    policy: Tensor
    value: Tensor
    log_ratio: Tensor


def ppo_loss(network: PPONetwork, batch: Samples, *, config: PPOConfig) -> PPOLoss:
    """Loss of a batch, Schulman et al. (2017), eq. 9, its sign turned."""
    logits, value = network.judge(batch.observation)
    logits = masked(logits, batch.mask)
    log_ratio = log_probability(logits, batch.action) - batch.log_probability
    policy_part = clipped_policy_loss(log_ratio, batch.advantage, clip=config.clip)
    value_part = value_loss(value, batch.value, batch.target, clip=config.value_clip)
    loss = policy_part + config.value_weight * value_part
    if config.entropy_weight:
        loss = loss - config.entropy_weight * entropy(logits).mean()
    return PPOLoss(loss, policy_part.detach(), value_part.detach(), log_ratio.detach())
