"""Named agents."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.rl.dqn import DQNConfig

agent = store(group="agent")

# A choice of weight changes nothing that comes next, so there is no future to discount.
agent(named(DQNConfig, discount=0.0), name="dqn_fusion")
