"""What a policy earns, on environments and seeds of its own.

Shapes: N environments, E episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from predact.rl.collector import Act
from predact.rl.environment import BatchedEnvironment, action_mask

MAX_STEPS = 1_000_000


@torch.no_grad()
def episode_returns(act: Act, environment: BatchedEnvironment, *, num_episodes: int, seed: int) -> Tensor:
    """Return the undiscounted returns of `num_episodes` whole episodes, (E,) float64.

    Each environment plays its share of them, so that short episodes do not crowd out long ones.

    Args:
        act: greedy actions; a module's `act` on the environment's device.
        environment: not one that is trained on: it is reset.
        seed: of the environment; the same one gives the same episodes to every policy.

    Raises:
        ValueError: Episodes do not end.
    """
    num_envs = environment.num_envs
    observation = environment.reset(generator=torch.Generator().manual_seed(seed))
    share = torch.full((num_envs,), num_episodes // num_envs)
    share[: num_episodes % num_envs] += 1
    running, returns = torch.zeros(num_envs, dtype=torch.float64), []
    for _ in range(MAX_STEPS):
        transition = environment.step(act(observation, action_mask(environment)))
        observation = environment.observation
        running += transition.reward.cpu()
        ended = (transition.terminated | transition.truncated).cpu()
        if ended.any():
            counted = ended & (share > 0)
            returns.append(running[counted])
            share -= counted.long()
            running[ended] = 0.0
            if not share.any():
                return torch.cat(returns)
    raise ValueError(f"{int(share.sum())} of {num_episodes} episodes did not end within {MAX_STEPS} steps")
