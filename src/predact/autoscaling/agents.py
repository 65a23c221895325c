"""A trained agent with all that it needs to act: one file, read without Lightning.

It carries the environment that it was trained in, its forecaster, and what it did in some situations when it was saved,
which every later version must do again.

Shapes: N environments, D observed numbers, A actions, G golden decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import NONE, find_forecaster
from predact.autoscaling.legacy import OBSERVED, LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, make_pattern
from predact.autoscaling.lstm_forecast import LstmForecaster
from predact.autoscaling.observations import Observer, check_layout, layout
from predact.autoscaling.recording import Seen, record, record_legacy
from predact.rl.acting import masked
from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.ppo import PPOConfig, PPONetwork
from predact.rl.q_table import QTable, QTableConfig
from predact.runtime.checkpoints import load_model, load_weights, save_model
from predact.runtime.errors import PredactError

KIND = "autoscaling_agent"
LEGACY_CHANGES = (-1, 0, 1)
NUM_GOLDEN = 32
# Played when an agent is saved; the golden decisions are some of theirs.
GOLDEN_SEEDS = range(5_000_000, 5_000_004)

AgentConfig = QTableConfig | DQNConfig | PPOConfig
Network = QTable | QNetwork | PPONetwork
EnvironmentConfig = AutoscaleConfig | LegacyConfig
AGENTS: dict[str, type[AgentConfig]] = {"q_table": QTableConfig, "dqn": DQNConfig, "ppo": PPOConfig}
ENVIRONMENTS: dict[str, type[EnvironmentConfig]] = {"autoscale": AutoscaleConfig, "legacy": LegacyConfig}
_Config = TypeVar("_Config")


def kind_of(config: AgentConfig) -> str:
    """Return the agent's name in tables and `results.json`: `q_table`, `dqn` or `ppo`."""
    return next(name for name, kind in AGENTS.items() if isinstance(config, kind))


def make_network(config: AgentConfig, *, names: Sequence[str], num_actions: int) -> Network:
    """Return an untrained agent's network.

    Args:
        config: the agent.
        names: of the D observed numbers.
        num_actions: A.
    """
    match config:
        case QTableConfig():
            return QTable(config, names=names, num_actions=num_actions)
        case DQNConfig():
            return QNetwork(config, observation_dim=len(names), num_actions=num_actions)
        case PPOConfig():
            return PPONetwork(config, observation_dim=len(names), num_actions=num_actions)


def layout_of(environment: EnvironmentConfig) -> dict[str, list[Any]]:
    """Return what an agent and its environment must agree on: names of observed numbers, and what actions change."""
    if isinstance(environment, LegacyConfig):
        return {"observation": list(OBSERVED), "actions": list(LEGACY_CHANGES)}
    return layout(environment)


class Agent:
    """An agent as it is when this is made: training its network further does not change it.

    Args:
        config: what the network was built from.
        network: copied, to the CPU.
        environment: which it was trained in.
        load: the load there; None for the earlier environment, whose config names it.
        forecaster: whose forecasts it observes, where `environment.forecast` names none that is built in.
        golden: what it did when it was saved, as `load` reads it.
    """

    def __init__(
        self,
        config: AgentConfig,
        network: torch.nn.Module,
        environment: EnvironmentConfig,
        *,
        load: LoadConfig | None = None,
        forecaster: LstmForecaster | None = None,
        golden: Seen | None = None,
    ) -> None:
        if (load is None) != isinstance(environment, LegacyConfig):
            raise ValueError(f"load={load}: an AutoscaleConfig needs one, a LegacyConfig has its own")
        if forecaster is not None and getattr(environment, "forecast", NONE) == NONE:
            raise ValueError("forecast='none' observes no forecaster; give it a name, such as 'lstm'")
        self.config, self.environment, self.load_config = config, environment, load
        self.forecaster, self.golden = forecaster, golden
        self.layout = layout_of(environment)
        self.names, self.changes = tuple(self.layout["observation"]), tuple(self.layout["actions"])
        self.network = make_network(config, names=self.names, num_actions=len(self.changes)).eval()
        load_weights(self.network, network.state_dict(), source="the agent")

    @property
    def kind(self) -> str:
        """`q_table`, `dqn` or `ppo`."""
        return kind_of(self.config)

    @property
    def pattern(self) -> str:
        """Name of the load that it was trained with."""
        if isinstance(self.environment, LegacyConfig):
            return f"legacy {self.environment.pattern}"
        assert self.load_config is not None
        return self.load_config.pattern

    def act(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the greedy actions (N,) for observations (N, D), of those that `mask` (N, A) allows.

        Raises:
            PredactError: there are not as many numbers as it was trained on.
        """
        if observation.shape[-1] != len(self.names):
            raise PredactError(
                f"the agent observes {len(self.names)} numbers ({', '.join(self.names)}), it was given "
                f"{observation.shape[-1]}; set the environment alike or train again"
            )
        # Not a faster form of the network, which would round otherwise: what was evaluated is what acts.
        return self.network.act(observation, mask)

    @torch.no_grad()
    def scores(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what ranks the actions, (N, A): values, or logits of a PPO agent."""
        network = self.network
        if isinstance(network, PPONetwork):
            return masked(network.actor(network.scaled(observation)), mask)
        return masked(network(observation), mask)

    def policy(self, cluster: Cluster) -> AgentPolicy:
        """Return the agent at work on a cluster.

        Raises:
            PredactError: see `check`.
        """
        return AgentPolicy(self, cluster)

    def check(self, config: AutoscaleConfig) -> None:
        """Refuse a cluster that the agent cannot decide for.

        Raises:
            PredactError: its observations, forecasts or actions are others than those that the agent was trained with.
        """
        check_layout(self.layout, config)
        trained = getattr(self.environment, "forecast", None)
        if trained != config.forecast:
            raise PredactError(
                f"the agent was trained with forecast={trained!r}, the environment has {config.forecast!r}; "
                "set them alike or train again"
            )

    def save(self, path: Path, *, meta: Mapping[str, Any], pattern: LoadPattern | None = None) -> str:
        """Write the model file atomically and return the hash of its content; some episodes are played for it.

        Args:
            path: the file.
            meta: plain data.
            pattern: the load of these episodes; None makes the one that the agent was trained with.
        """
        environment, forecaster, load = self.environment, self.forecaster, self.load_config
        state: dict[str, Tensor] = {}
        for part, tensors in (
            ("network", self.network.state_dict()),
            ("forecaster", forecaster.state_dict() if forecaster else {}),
            ("golden", self._play_golden(pattern)._asdict()),
        ):
            state |= {f"{part}.{name}": tensor for name, tensor in tensors.items()}
        config = {
            "kind": KIND,
            "agent": {"name": self.kind, "config": asdict(self.config)},
            "environment": {
                "name": next(name for name, kind in ENVIRONMENTS.items() if isinstance(environment, kind)),
                "config": asdict(environment),
            },
            "load": asdict(load) if load else None,
            "forecaster": forecaster.plain_config() if forecaster else None,
            "layout": self.layout,
        }
        return save_model(path, config=config, state_dict=state, meta=meta)

    @classmethod
    def load(cls, path: Path) -> Agent:
        """Read a model file that `save` wrote.

        Raises:
            PredactError: it is absent, damaged, or of another kind or version.
        """
        model = load_model(path)
        if model.config.get("kind") != KIND:
            raise PredactError(
                f"{path} holds {model.config.get('kind')!r}, not an autoscaling agent; name another model"
            )
        try:
            agent, environment, saved = (model.config[name] for name in ("agent", "environment", "load"))
            config = _restored(AGENTS[agent["name"]], agent["config"])
            place = _restored(ENVIRONMENTS[environment["name"]], environment["config"])
            if layout_of(place) != model.config["layout"]:
                raise ValueError("it observes or does something else in this environment")
            golden = _golden(model.state_dict, num_values=len(layout_of(place)["observation"]))
            load = None if saved is None else _restored(LoadConfig, saved)
            forecaster = model.config["forecaster"]
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PredactError(f"{path} was written by another version ({reason}); train it again") from error
        network = make_network(config, names=layout_of(place)["observation"], num_actions=golden.mask.shape[1])
        load_weights(network, _part(model.state_dict, "network"), source=str(path))
        if forecaster is not None:
            state = _part(model.state_dict, "forecaster")
            forecaster = LstmForecaster.from_state(forecaster, state, source=f"the forecaster in {path}")
        return cls(config, network, place, load=load, forecaster=forecaster, golden=golden)

    def _play_golden(self, pattern: LoadPattern | None) -> Seen:
        environment = self.environment
        if isinstance(environment, LegacyConfig):
            seen = record_legacy(environment, self.act, num_envs=len(GOLDEN_SEEDS), seed=GOLDEN_SEEDS[0]).seen
        else:
            pattern = pattern or make_pattern(self.load_config or LoadConfig(), environment)
            cluster = Cluster(environment, pattern, num_envs=len(GOLDEN_SEEDS))
            policy = self.policy(cluster)
            seen = record(cluster, policy, policy.look, GOLDEN_SEEDS).seen
        order = torch.randperm(len(seen.action), generator=torch.Generator().manual_seed(0))
        return seen.rows(order[:NUM_GOLDEN])


class AgentPolicy:
    """An agent that decides for a cluster: a `Policy` that looks for itself, as in training, and acts greedily.

    Args:
        agent: whose forecaster is asked.
        cluster: the one whose views it is given.
    """

    def __init__(self, agent: Agent, cluster: Cluster) -> None:
        agent.check(cluster.config)
        forecaster = agent.forecaster or find_forecaster(cluster.config.forecast)
        self._observer = Observer(cluster.config, forecaster, num_envs=cluster.num_envs)
        self._agent, self._cluster = agent, cluster

    def reset(self) -> None:
        """Forget nothing: the first observation of an episode renews the forecast."""

    def look(self) -> tuple[Tensor, Tensor]:
        """Return what the agent sees now (N, D), and which actions are allowed (N, A)."""
        observation = self._observer(self._cluster)
        return torch.from_numpy(observation), torch.from_numpy(self._cluster.action_mask())

    def __call__(self, view: ClusterView, /) -> NDArray[np.int64]:
        """Return the actions."""
        actions: NDArray[np.int64] = self._agent.act(*self.look()).numpy()
        return actions


def _restored(kind: type[_Config], saved: Mapping[str, Any]) -> _Config:
    """Return the config that plain data came from; lists become tuples again, and every field is checked."""
    unknown = set(saved) - {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return TypeAdapter(kind).validate_python(saved)


def _golden(state: Mapping[str, Tensor], *, num_values: int) -> Seen:
    golden = Seen(**_part(state, "golden"))
    rows = len(golden.action)
    if not rows or golden.observation.shape != (rows, num_values) or golden.mask.shape[:1] != (rows,):
        raise ValueError(f"golden decisions of shapes {[tuple(part.shape) for part in golden]}")
    return golden


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
