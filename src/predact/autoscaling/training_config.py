"""How long an agent trains, and on how many episodes it is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from predact.autoscaling.agents import AgentConfig
from predact.autoscaling.evaluation import SEEDS_OF_A_RANGE
from predact.rl.dqn import DQNConfig
from predact.runtime.errors import PredactError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Amounts of experience; the agent's own config says what it makes of them.

    Args:
        num_envs: Environments that are stepped together.
        timesteps: Environment steps over all of them, rounded up to whole episodes in each. None takes the agent's
            `epochs`: so many episodes in each environment. `trainer.max_epochs` comes before both.
        episodes: Over all environments; in place of `timesteps`.
        checkpoint_every_steps: Environment steps between two resumable checkpoints.
        validation_episodes: Played after each epoch; the best epoch is kept.
        calibration_episodes: On which the autoscalers' settings are chosen, and the levels of the static rules.
        test_episodes: Every row of the results is measured on.
        most_violation: Part of all requests that a calibrated autoscaler may serve late or drop.
        vary_traces: Whether recorded load is changed in level, shape and time in each training episode.
        vary_starts: Part of the training episodes that begin with a fleet far too small or too large.
    """

    num_envs: int = 64
    timesteps: int | None = 1_000_000
    episodes: int | None = None
    checkpoint_every_steps: int = 10_000
    validation_episodes: int = 64
    calibration_episodes: int = 128
    test_episodes: int = 100
    most_violation: float = 0.01
    vary_traces: bool = True
    vary_starts: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_envs", "checkpoint_every_steps", "validation_episodes", "calibration_episodes"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in ("timesteps", "episodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in ("validation_episodes", "calibration_episodes", "test_episodes"):
            if (value := getattr(self, name)) > SEEDS_OF_A_RANGE:
                raise ValueError(f"{name}={value} is above {SEEDS_OF_A_RANGE}: each episode has a seed of its own")
        if self.test_episodes < 2:
            raise ValueError(
                f"test_episodes={self.test_episodes} must be at least 2: differences are paired by episode"
            )
        for name in ("most_violation", "vary_starts"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1]")

    def epochs(self, *, episode_steps: int, otherwise: int) -> int:
        """Return the episodes of each environment.

        Args:
            episode_steps: of an episode.
            otherwise: where neither `timesteps` nor `episodes` is set.
        """
        if self.episodes is not None:
            return math.ceil(self.episodes / self.num_envs)
        if self.timesteps is not None:
            return math.ceil(self.timesteps / (episode_steps * self.num_envs))
        return otherwise


def stated_lengths(training: TrainingConfig, agent: AgentConfig, *, max_epochs: int | None = None) -> dict[str, int]:
    """Return by field whatever says how long the training is; the first decides, as in `planned_epochs`."""
    stated = {
        "trainer.max_epochs": max_epochs,
        "training.episodes": training.episodes,
        "training.timesteps": training.timesteps,
        "agent.epochs": agent.epochs,
    }
    return {name: value for name, value in stated.items() if value}


def unread_lengths(training: TrainingConfig, agent: AgentConfig, *, max_epochs: int | None = None) -> list[str]:
    """Return a line for each length that somebody set and that does not decide.

    Of `timesteps` nobody can tell: presets set it.
    """
    (decides, said), *others = stated_lengths(training, agent, max_epochs=max_epochs).items()
    set_by_user = {"training.episodes", *(["agent.epochs"] if agent.epochs != type(agent).epochs else [])}
    return [
        f"{name}={value} has no effect: {decides}={said} says how long the training is; drop one of the two, or set "
        f"trainer.max_epochs alone"
        for name, value in others
        if name in set_by_user
    ]


def planned_epochs(
    training: TrainingConfig, agent: AgentConfig, *, episode_steps: int, max_epochs: int | None = None
) -> int:
    """Return the episodes of each environment.

    Args:
        episode_steps: of an episode.
        max_epochs: the trainer's own number, which comes first.

    Raises:
        PredactError: the agent would learn from nothing: the training is too short, or its buffer too small.
    """
    epochs = max_epochs or training.epochs(episode_steps=episode_steps, otherwise=agent.epochs)
    if isinstance(agent, DQNConfig):
        timesteps = epochs * episode_steps * training.num_envs
        if timesteps < (first := agent.learning_starts + agent.steps_per_update):
            raise PredactError(
                f"a training of {timesteps:,} environment steps is over before the first update, after {first:,}: make "
                "it longer with --timesteps, --episodes or --epochs, or lower agent.learning_starts"
            )
        if agent.buffer_size < (least := agent.n_step * training.num_envs):
            raise PredactError(
                f"agent.buffer_size={agent.buffer_size} is below agent.n_step={agent.n_step} steps of "
                f"training.num_envs={training.num_envs}; raise it to {least} at least"
            )
    return epochs
