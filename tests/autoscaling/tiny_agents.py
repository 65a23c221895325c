"""Agents made by hand: tables that are rules, and networks as they are before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import torch
from torch import nn

from predact.autoscaling.agents import Agent, AgentConfig, EnvironmentConfig, layout_of, make_network
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig
from predact.autoscaling.lstm_forecast import LoadScale, LstmForecaster
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork
from predact.rl.dqn import DQNConfig
from predact.rl.ppo import PPOConfig, PPONetwork
from predact.rl.q_table import QTable, QTableConfig

CONFIG = AutoscaleConfig(episode_steps=40, history_steps=24)
LOAD = LoadConfig(pattern="sinusoidal")
LEGACY = LegacyConfig()
UNTRAINED: dict[str, AgentConfig] = {
    # Not in the order of the alphabet, nor of what is observed.
    "q_table": QTableConfig(bins={"utilisation": (0.3, 0.5, 0.7), "ready": (0.4, 0.6), "queue": (0.1, 0.5)}),
    "dqn": DQNConfig(hidden=(16, 16), dueling=True),
    "ppo": PPOConfig(hidden=(16,), normalize_observations=True),
}
# Of a rule: by the number of each bin, in the order of the bins, which way to go.
Rule = Callable[..., int]


def untrained(
    kind: str,
    environment: AutoscaleConfig = CONFIG,
    *,
    load: LoadConfig = LOAD,
    forecaster: LstmForecaster | None = None,
    seed: int = 0,
) -> Agent:
    """Return an agent whose actions are chance, and always the same in the same state."""
    torch.manual_seed(seed)
    config = UNTRAINED[kind]
    observed = layout_of(environment)
    network = make_network(config, names=observed["observation"], num_actions=len(observed["actions"]))
    for name, values in network.state_dict().items():
        if values.is_floating_point() and "normalizer" not in name:
            values.copy_(torch.randn(values.shape))
        elif name == "normalizer.mean":
            values.copy_(torch.rand(values.shape))
    agent = Agent(config, network, environment, load=load, forecaster=forecaster)
    if not isinstance(agent.network, QTable):
        # Balanced in a usual state, lest one action be the best in all of them.
        last = agent.network.actor[-1] if isinstance(agent.network, PPONetwork) else agent.network.head
        assert isinstance(last, nn.Linear)
        last.bias.data -= agent.scores(torch.full((1, len(agent.names)), 0.3))[0]
    return agent


def rule_agent(
    rule: Rule,
    bins: Mapping[str, tuple[float, ...]],
    environment: EnvironmentConfig = CONFIG,
    *,
    load: LoadConfig | None = LOAD,
) -> Agent:
    """Return a table that does what a rule says: 1 adds, 0 does nothing, -1 removes."""
    config, observed = QTableConfig(bins=dict(bins)), layout_of(environment)
    table = QTable(config, names=observed["observation"], num_actions=len(observed["actions"]))
    for state, numbers in enumerate(product(*(range(len(edges) + 1) for edges in bins.values()))):
        table.values[state] = -torch.tensor(observed["actions"]).sub(rule(*numbers)).abs().float()
    return Agent(config, table, environment, load=None if isinstance(environment, LegacyConfig) else load)


LEVELS = {"utilisation": (0.4, 0.75), "queue": (0.1,)}
LEGACY_LEVELS = {"load": (0.6, 0.95), "queue": (100.0,)}


def threshold(utilisation: int, queue: int) -> int:
    """Return the threshold rule's wish, of bins like `LEVELS`."""
    return 1 if utilisation == 2 or queue else -1 if utilisation == 0 else 0


def inverted(utilisation: int, queue: int) -> int:
    """Return the opposite."""
    return -threshold(utilisation, queue)


def threshold_agent(environment: EnvironmentConfig = CONFIG, *, load: LoadConfig = LOAD) -> Agent:
    """Return an agent that adds at high utilisation or where requests wait, and removes at low utilisation."""
    bins = LEGACY_LEVELS if isinstance(environment, LegacyConfig) else LEVELS
    return rule_agent(threshold, bins, environment, load=load)


def forecaster(config: AutoscaleConfig) -> LstmForecaster:
    """Return an untrained forecaster of the load, which always says the same of the same past."""
    torch.manual_seed(1)
    lstm = SegmentLSTMConfig(look_back=24, segment=6, hidden_dim=4, quantiles=(0.5, 0.9), dropout=0.0)
    network = ForecastNetwork(NamedNetwork(lstm, horizon=config.forecast_steps))
    return LstmForecaster(network, LoadScale(0.4, 0.2, config.decision_s))
