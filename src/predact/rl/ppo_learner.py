"""Rollouts and updates of PPO, in plain torch: what a Trainer or any other loop calls.

While it acts only the actor is asked, for one step; values and probabilities of a whole rollout are computed at once
when it is done.

Shapes: T steps, N environments, B samples, D observed values, A actions.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from predact.rl.acting import fast_layers, masked
from predact.rl.environment import BatchedEnvironment, action_mask, skipped
from predact.rl.episodes import EpisodeReturns
from predact.rl.flat_parameters import FlatParameters
from predact.rl.learner import fused_adam, seeds_of, steps_of_rollout
from predact.rl.ppo import (
    KL_SLACK,
    PPOConfig,
    PPONetwork,
    Samples,
    approximate_kl,
    entropy,
    explained_variance,
    generalized_advantages,
    log_probability,
    normalized_batches,
    ppo_loss,
)
from predact.rl.rows import Rows, Shape

log = logging.getLogger(__name__)

# Larger than the usual 1e-8, which lets the first steps after a quiet spell grow out of proportion.
ADAM_EPSILON = 1e-5


class PPOLearner:
    """Alternates rollouts of all environments with passes over what they gave.

    Args:
        config: the agent.
        network: trained; already on the training device.
        environment: reset here; may live on another device.
        seed: of the actions, the order of samples, and the environment.
    """

    def __init__(self, config: PPOConfig, network: PPONetwork, environment: BatchedEnvironment, *, seed: int) -> None:
        # Refuses a schedule whose length nobody has filled in.
        config.learning_rate_at(0)
        self.updates, self.env_steps = 0, 0
        self._config, self._network, self._environment = config, network, environment
        self._flat = FlatParameters(network)
        self._device = self._flat.parameter.device
        seeds = seeds_of(seed, 3)
        self._environment_generator = torch.Generator().manual_seed(seeds[2])
        observation = environment.reset(generator=self._environment_generator)
        expected = (environment.num_envs, environment.observation_dim)
        if observation.shape != expected:
            raise ValueError(f"the environment observes {tuple(observation.shape)}, though it declares {expected}")
        self._generator = torch.Generator(observation.device).manual_seed(seeds[0])
        self._order_generator = torch.Generator(self._device).manual_seed(seeds[1])
        self._rows = self._memory(observation)
        self._layers = fast_layers([*network.actor], observation)
        self._episodes = EpisodeReturns(environment.num_envs)
        self._sums: dict[str, float] = {}
        self._rollouts = 0
        self._is_over = False

    def _memory(self, observation: Tensor) -> Rows:
        environment = self._environment
        columns: dict[str, tuple[Shape, torch.dtype]] = {
            "observation": ((environment.observation_dim,), torch.float32),
            "next_observation": ((environment.observation_dim,), torch.float32),
            "action": ((), torch.int64),
            "reward": ((), torch.float32),
            "terminated": ((), torch.bool),
            "truncated": ((), torch.bool),
        }
        if action_mask(environment) is not None:
            columns["mask"] = ((environment.num_actions,), torch.bool)
        if skipped(environment) is not None:
            columns["skipped"] = ((), torch.bool)
        num_rows = min(self._config.rollout_steps, environment.steps_per_epoch)
        return Rows(columns, num_rows=num_rows, num_envs=environment.num_envs, device=observation.device)

    def build_optimizer(self) -> Optimizer:
        """Return a new optimiser of the network's weights."""
        return fused_adam(self._flat, learning_rate=self._config.learning_rate, epsilon=ADAM_EPSILON)

    def rollout(self, optimizer: Optimizer, *, counted_step: Callable[[], object] | None = None) -> None:
        """Step all environments `rollout_steps` times, stopping at the epoch's end, then pass over it all.

        Args:
            optimizer: of the network's parameters.
            counted_step: called in place of `optimizer.step` for the first update, which no KL stop leaves out.
        """
        num_steps = steps_of_rollout(self._config.rollout_steps, self._environment, self.env_steps)
        learning_rate = self._set_learning_rate(optimizer)
        rows = self._collect(num_steps)
        samples, logits = self._samples(rows)
        metrics = self._update(samples, optimizer, counted_step or optimizer.step) | {
            "reward": rows["reward"].mean(),
            "entropy": entropy(logits).mean(),
            "learning_rate": learning_rate,
        }
        if self._network.normalizer is not None:
            # Last, so that the network that acted is the one that is updated.
            self._network.normalizer.update(rows["observation"].flatten(0, 1))
        self._rollouts += 1
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def _set_learning_rate(self, optimizer: Optimizer) -> float:
        learning_rate = self._config.learning_rate_at(self.env_steps)
        if learning_rate == 0 and not self._is_over:
            self._is_over = True
            log.warning(
                "learning rate 0 after %d environment steps: nothing more is learned; raise "
                "agent.learning_rate_decay_steps=%d, or agent.learning_rate_end=%s",
                self.env_steps,
                self._config.learning_rate_decay_steps,
                self._config.learning_rate_end,
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    @torch.no_grad()
    def _collect(self, num_steps: int) -> dict[str, Tensor]:
        """Step with actions drawn from the policy, and return the columns (T, N, ...) on the training device."""
        environment, rows = self._environment, self._rows
        shape = (num_steps, environment.num_envs, environment.num_actions)
        noise = torch.empty(shape, device=self._generator.device).exponential_(generator=self._generator).log_().neg_()
        actor = self._actor()
        for step in range(num_steps):
            observation, mask = environment.observation, action_mask(environment)
            # The largest of logits with Gumbel noise is a draw from their probabilities (Gumbel, 1954).
            action = (masked(actor(observation), mask) + noise[step]).argmax(dim=1)
            transition = environment.step(action)
            values = {"observation": observation, "action": action, **transition._asdict()}
            if mask is not None:
                values["mask"] = mask
            if (reset_only := skipped(environment)) is not None:
                values["skipped"] = reset_only
            rows.write(step, values)
        self.env_steps += num_steps * environment.num_envs
        taken = {name: column[:num_steps] for name, column in rows.columns.items()}
        self._episodes.add(taken["reward"], taken["terminated"] | taken["truncated"])
        return {name: column.to(self._device) for name, column in taken.items()}

    def _actor(self) -> Callable[[Tensor], Tensor]:
        """Return what maps the environment's observations to logits on the same device."""
        network, layers = self._network, self._layers
        if layers is None:
            device = self._environment.observation.device
            return lambda observation: network.actor(network.scaled(observation.to(self._device))).to(device)
        layers.refresh()
        if network.normalizer is None:
            return layers
        normalizer = copy.deepcopy(network.normalizer).cpu()
        return lambda observation: layers(normalizer(observation))

    @torch.no_grad()
    def _samples(self, rows: dict[str, Tensor]) -> tuple[Samples, Tensor]:
        """Value and judge a rollout with the network that acted in it; return its steps and their logits (B, A)."""
        config, network = self._config, self._network
        observation = network.scaled(rows["observation"])
        logits, value = network.judge(observation)  # (T, N, A), (T, N)
        logits = masked(logits, rows.get("mask")).flatten(0, 1)
        advantage = generalized_advantages(
            rows["reward"],
            value,
            self._next_value(rows, value),
            rows["terminated"],
            rows["truncated"],
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        )
        action = rows["action"].flatten()
        samples = Samples(
            observation.flatten(0, 1),
            action,
            log_probability(logits, action),
            value.flatten(),
            advantage.flatten(),
            (advantage + value).flatten(),
            rows["mask"].flatten(0, 1) if "mask" in rows else None,
        )
        if "skipped" in rows and rows["skipped"].any():
            samples = samples.select((~rows["skipped"]).flatten().nonzero().squeeze(1))
        return samples, logits

    def _next_value(self, rows: dict[str, Tensor], value: Tensor) -> Tensor:
        """Return the values (T, N) of the states reached; only those acted in next are known already."""
        asked = rows["truncated"].clone()
        asked[-1] = True
        next_value = torch.cat([value[1:], value[-1:]])
        reached = self._network.scaled(rows["next_observation"][asked])
        next_value[asked] = self._network.critic(reached).squeeze(-1)
        return next_value

    def _update(
        self, samples: Samples, optimizer: Optimizer, counted_step: Callable[[], object]
    ) -> dict[str, Tensor | float]:
        """Pass over the samples; return what is logged, the policy's move being that seen in the last pass."""
        config, step = self._config, counted_step
        policy_losses: list[Tensor] = []
        value_losses: list[Tensor] = []
        moves: list[Tensor] = []
        self._flat.attach()
        for batch, is_first in self._passes(samples):
            self._flat.clear()
            loss = ppo_loss(self._network, batch, config=config)
            moves = [loss.log_ratio] if is_first else [*moves, loss.log_ratio]
            if config.target_kl is not None and approximate_kl(loss.log_ratio) > KL_SLACK * config.target_kl:
                break
            loss.loss.backward()  # type: ignore[no-untyped-call]
            if config.max_grad_norm is not None:
                self._flat.clip(config.max_grad_norm)
            step()
            step = optimizer.step
            self.updates += 1
            policy_losses.append(loss.policy)
            value_losses.append(loss.value)
        log_ratio = torch.cat(moves)
        return {
            "policy_loss": torch.stack(policy_losses).mean(),
            "value_loss": torch.stack(value_losses).mean(),
            "kl": approximate_kl(log_ratio),
            "clipped": ((log_ratio.exp() - 1).abs() > config.clip).float().mean(),
            "explained_variance": explained_variance(samples.value, samples.target),
        }

    def _passes(self, samples: Samples) -> Iterator[tuple[Samples, bool]]:
        """Yield the batches of all passes, each in an order of its own, and whether one begins a pass."""
        num_samples = len(samples.action)
        size = min(self._config.batch_size, num_samples)
        if num_samples == size:
            # The order within one batch does not matter, so that all passes are the same.
            yield from repeat((self._normalized(samples, size), True), self._config.update_epochs)
            return
        for _ in range(self._config.update_epochs):
            order = torch.randperm(num_samples, generator=self._order_generator, device=self._device)
            shuffled = self._normalized(samples.select(order[: num_samples // size * size]), size)
            for number, batch in enumerate(shuffled.split(size)):
                yield batch, number == 0

    def _normalized(self, samples: Samples, batch_size: int) -> Samples:
        """Return the samples as batches of this size are to see them."""
        if not self._config.normalize_advantages:
            return samples
        return samples._replace(advantage=normalized_batches(samples.advantage, batch_size))

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and the counts since the start, and begin a new epoch.

        The return is missing where no episode ended.
        """
        metrics = {name: total / self._rollouts for name, total in self._sums.items()}
        self._sums, self._rollouts = {}, 0
        if (mean := self._episodes.take_mean()) is not None:
            metrics["episode_return"] = mean
        return metrics | {"env_steps": float(self.env_steps), "updates": float(self.updates)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the network and the optimiser, as tensors and numbers."""
        return {
            "updates": self.updates,
            "env_steps": self.env_steps,
            "rollouts": self._rollouts,
            "sums": dict(self._sums),
            "episodes": self._episodes.state_dict(),
            "environment": self._environment.state_dict(),
            "generator": self._generator.get_state(),
            "order_generator": self._order_generator.get_state(),
            "environment_generator": self._environment_generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.updates, self.env_steps = int(state["updates"]), int(state["env_steps"])
        self._rollouts, self._sums = int(state["rollouts"]), dict(state["sums"])
        self._episodes.load_state_dict(state["episodes"])
        self._environment.load_state_dict(state["environment"])
        self._generator.set_state(state["generator"].cpu())
        self._order_generator.set_state(state["order_generator"].cpu())
        self._environment_generator.set_state(state["environment_generator"].cpu())
