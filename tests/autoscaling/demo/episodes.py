"""What the tests of the demo share: saved agents, and episodes that were played."""

from __future__ import annotations

from pathlib import Path

import torch

from predact.autoscaling.agents import Agent, AgentConfig, EnvironmentConfig, layout_of, make_network
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo.lanes import Lane, SideBySide
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import make_policy
from predact.rl.ppo import PPOConfig

SMALL = PPOConfig(hidden=(4,))


def save_agent(
    folder: Path,
    name: str,
    *,
    config: AgentConfig = SMALL,
    environment: EnvironmentConfig | None = None,
    pattern: str = "spike",
) -> Path:
    """Save an untrained agent."""
    place = environment or AutoscaleConfig()
    layout = layout_of(place)
    torch.manual_seed(0)
    network = make_network(config, names=layout["observation"], num_actions=len(layout["actions"]))
    load = None if isinstance(place, LegacyConfig) else LoadConfig(pattern=pattern)
    path = folder / f"{name}.pth"
    Agent(config, network, place, load=load).save(path, meta={})
    return path


def episode(*rules: str, steps: int = 12, seed: int = 3, pattern: str = "spike", is_played: bool = True) -> SideBySide:
    """Return an episode of some rules."""
    config = AutoscaleConfig(episode_steps=steps)
    load = make_pattern(LoadConfig(pattern=pattern), config)

    def lane(rule: str) -> Lane:
        place = Cluster(config, load, num_envs=1)
        return Lane(rule, place, lambda cluster: make_policy(rule, cluster, seed=seed), seed=seed)

    shown = SideBySide(config, [lane(rule) for rule in rules], title=f"{pattern}, seed {seed}")
    if is_played:
        assert list(shown.play()) == list(range(1, steps + 1))
    return shown
