"""Windows as two detectors with different weaknesses would score them."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from predact.detection.prediction_cache import WindowScores
from predact.fusion.environment import FusionEnvironment, Observer
from predact.fusion.weighting import DQNPolicy, FixedAlpha, count_windows
from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.learner import DQNLearner

FEATURES = ("gat_confidence", "vgae_confidence", "vgae_node_error", "vgae_edge_error", "vgae_kl")
WINDOW_S = 0.05


def windows_of(scores, label=None, *, capture=None, start_s=None, features=None):
    """Return windows of 50 ms from plain lists; without more, one capture of benign windows and features of 0."""
    num_windows = len(scores)
    capture = torch.as_tensor(capture if capture is not None else np.zeros(num_windows)).long()
    start_s = torch.as_tensor(start_s if start_s is not None else np.arange(num_windows) * WINDOW_S).double()
    return WindowScores(
        scores=torch.as_tensor(np.asarray(scores, np.float32)).reshape(num_windows, 2),
        features=torch.as_tensor(np.asarray(features if features is not None else np.zeros((num_windows, 5)))).float(),
        label=torch.as_tensor(label if label is not None else np.zeros(num_windows)).to(torch.uint8),
        capture=capture,
        start_s=start_s,
        end_s=start_s + WINDOW_S,
        feature_names=FEATURES,
        capture_names=tuple(f"capture_{index}" for index in range(1 + max(capture.tolist(), default=-1))),
    )


@dataclass(frozen=True, kw_only=True)
class Detectors:
    """How well two detectors see attacks of kind 0 and 1.

    Args:
        gat_sees: Kinds of attack that the GAT finds; of the others it says what it says of benign windows, less surely.
        gat_bias: Added to the GAT's logit.
        vgae_bias: Added to the VGAE's logit and node error.
        vgae_false_alarms: Share of benign windows whose node error, but not edge error, is that of an attack.
        kinds: Kinds of attack there are.
    """

    gat_sees: tuple[int, ...] = (0, 1)
    gat_bias: float = 0.0
    vgae_bias: float = 0.0
    vgae_false_alarms: float = 0.01
    kinds: tuple[int, ...] = (0, 1)


SATURATED = Detectors()
"""Both are nearly always right, as on real validation windows."""
GAT_HALF_BLIND = Detectors(gat_sees=(0,), vgae_false_alarms=0.03)
"""The GAT misses one kind of attack that the VGAE finds; the VGAE raises false alarms that its own errors give away."""


def record(detectors, *, num_captures, num_windows, seed):
    """Return captures with attacks in bursts of 10 to 60 windows."""
    rng = np.random.default_rng(seed)
    kind = np.concatenate([bursts(rng, num_windows, detectors.kinds) for _ in range(num_captures)])
    total, is_attack = len(kind), kind >= 0
    gat_logit = np.where(np.isin(kind, detectors.gat_sees), 7.0, np.where(is_attack, -3.0, -7.0))
    gat_logit += detectors.gat_bias + 1.5 * rng.standard_normal(total)
    is_false_alarm = ~is_attack & (rng.random(total) < detectors.vgae_false_alarms)
    node_error = rng.standard_normal(total) + 6.5 * is_attack + 6.5 * is_false_alarm * rng.uniform(0.7, 1.2, total)
    edge_error = rng.standard_normal(total) + 6.5 * is_attack * rng.uniform(0.3, 1, total)
    vgae_logit = 0.8 * node_error + 0.2 * edge_error - 2.5 + detectors.vgae_bias
    gat, vgae = sigmoid(gat_logit), sigmoid(vgae_logit)
    kl = 0.5 * node_error + 0.5 * rng.standard_normal(total)
    columns = (abs(2 * gat - 1), abs(2 * vgae - 1), node_error + detectors.vgae_bias, edge_error, kl)
    return windows_of(
        np.stack([gat, vgae], 1),
        is_attack,
        capture=np.repeat(np.arange(num_captures), num_windows),
        start_s=np.tile(np.arange(num_windows) * WINDOW_S, num_captures),
        features=np.stack(columns, 1),
    )


def bursts(rng, num_windows, kinds):
    """Return (num_windows,) the kind of attack in each window, -1 where there is none."""
    kind, start = np.full(num_windows, -1), 0
    while True:
        start += 20 + int(rng.exponential(150))
        end = start + int(rng.integers(10, 60))
        if end >= num_windows:
            return kind
        kind[start:end] = rng.choice(kinds)
        start = end


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def split(detectors, *, seed, **unseen):
    """Return training and validation windows, and test windows where `unseen` differs from both."""
    train = record(detectors, num_captures=4, num_windows=1500, seed=[seed, 0])
    val = record(detectors, num_captures=3, num_windows=500, seed=[seed, 1])
    test = record(replace(detectors, **unseen), num_captures=2, num_windows=1500, seed=[seed, 2])
    return train, val, test


def train_dqn(train, val, config, *, seed, epochs=15):
    """Return a DQN policy trained as the project trains it, without Lightning around it."""
    agent = DQNConfig(discount=0.0, epochs=epochs, epsilon_decay_steps=len(train) * epochs // 2)
    observer, fixed = Observer.fit(train, config), FixedAlpha.fit(val, config)
    environment = FusionEnvironment(train, config=config, observer=observer, threshold=fixed.threshold)
    torch.manual_seed(seed)
    network = QNetwork(agent, observation_dim=environment.observation_dim, num_actions=environment.num_actions)
    learner = DQNLearner(agent, network, copy.deepcopy(network), environment, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=agent.learning_rate, fused=True)
    for _ in range(epochs * environment.steps_per_epoch):
        learner.rollout(optimizer)
    seen = count_windows(train.scores)
    return DQNPolicy(network=network, agent=agent, observer=observer, fixed=fixed, seen=seen)
