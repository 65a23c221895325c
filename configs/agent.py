"""Named agents."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.autoscaling.legacy import CAPACITY, MOST, MOST_INFLUX
from predact.rl.dqn import DQNConfig
from predact.rl.ppo import PPOConfig
from predact.rl.q_table import QTableConfig

agent = store(group="agent")

# A choice of weight changes nothing that comes next, so there is no future to discount.
agent(named(DQNConfig, discount=0.0), name="dqn_fusion")

# Rates fall and exploration ends with the training, however long it is.
agent(
    named(
        PPOConfig,
        rollout_steps=60,
        batch_size=960,
        update_epochs=4,
        learning_rate=2e-3,
        learning_rate_decay_steps=None,
        discount=0.99,
        gae_lambda=0.95,
        normalize_observations=True,
    ),
    name="ppo_autoscaling",
)
# Squared errors: a rare outage costs a hundred times an instance, and a loss that is linear there would look away.
agent(
    named(
        DQNConfig,
        loss="mse",
        dueling=True,
        n_step=5,
        discount=0.95,
        batch_size=1024,
        learning_starts=5_000,
        steps_per_update=64,
        rollout_steps=4,
        target_update="soft",
        target_tau=0.01,
        epsilon_schedule="exponential",
        epsilon_start=0.5,
        epsilon_end=0.02,
        epsilon_decay_steps=None,
    ),
    name="dqn_autoscaling",
)
agent(
    named(
        QTableConfig,
        bins={
            "utilisation": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            # Of thirty instances, two to a bin.
            "ready": tuple((count + 0.5) / 30 for count in range(3, 27, 2)),
            "influx_change": (-0.015, 0.015),
            "queue": (0.05,),
            "booting_1": (0.001,),
            "booting_2": (0.001,),
        },
        learning_rate=0.2,
        learning_rate_end=0.01,
        learning_rate_decay_steps=None,
        discount=0.92,
        exploration=0.5,
        exploration_end=0.02,
        exploration_decay_steps=None,
        exploration_schedule="exponential",
    ),
    name="q_table_autoscaling",
)

# In the environment of earlier work, whose observations go up to tens of thousands. A bin for each number of instances,
# for what each of them can serve, and for whether anybody waits; γ is low, since an action is there two steps later.
agent(
    named(
        QTableConfig,
        bins={
            "instances": tuple((count + 0.5) / MOST for count in range(2, MOST)),
            "influx": tuple(float(influx) for influx in range(CAPACITY, MOST_INFLUX + 1, CAPACITY)),
            "queue": (0.5,),
        },
        learning_rate_end=0.01,
        learning_rate_decay_steps=None,
        discount=0.7,
        exploration=0.3,
        exploration_end=0.0,
        exploration_decay_steps=None,
        rollout_steps=50,
    ),
    name="q_table_legacy",
)
agent(
    named(
        PPOConfig,
        rollout_steps=50,
        batch_size=200,
        learning_rate_decay_steps=None,
        discount=0.99,
        gae_lambda=0.95,
        normalize_observations=True,
    ),
    name="ppo_legacy",
)
agent(
    named(DQNConfig, loss="mse", n_step=5, rollout_steps=4, epsilon_end=0.02, epsilon_decay_steps=None),
    name="dqn_legacy",
)
