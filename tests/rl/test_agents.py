"""What every agent does in Lightning's Trainer, whatever it learns with; `DQNModule` has more in test_training.py."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from predact.rl.dqn import DQNConfig
from predact.rl.environment import BatchedEnvironment, Transition
from predact.rl.evaluation import episode_returns
from predact.rl.gymnasium_batch import GymnasiumBatch, GymnasiumScalars
from predact.rl.ppo import PPOConfig, PPONetwork
from predact.rl.q_table import QTable, QTableConfig
from predact.rl.training import (
    CHECKPOINT_KEY,
    AgentModule,
    DQNModule,
    EnvStepCheckpoint,
    PPOModule,
    QTableModule,
    read_network_state,
)
from predact.runtime.errors import PredactError

from .toy_environments import IdentityEnvironment, MaskedBandit, TabularEnvironment, chain, forever

# Resuming writes beside what the stopped run wrote.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

Build = Callable[..., AgentModule]


def trainer(epochs: int, folder: Path | None = None, *callbacks: L.Callback) -> L.Trainer:
    kept = [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)] if folder else []
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*kept, *callbacks],
        enable_checkpointing=bool(folder or callbacks),
    )


def dqn(environment: BatchedEnvironment, *, seed: int = 0, **fields: Any) -> DQNModule:
    small: dict[str, Any] = {
        "hidden": (32,),
        "batch_size": 32,
        "steps_per_update": 8,
        "learning_starts": 30,
        "target_every_updates": 10,
        "epsilon_decay_steps": 4000,
        "learning_rate": 5e-3,
        "discount": 0.9,
        "loss": "mse",
        "rollouts_per_training_step": 3,
    }
    return DQNModule(DQNConfig(**{**small, **fields}), environment, seed=seed)


def ppo(environment: BatchedEnvironment, *, seed: int = 0, **fields: Any) -> PPOModule:
    small: dict[str, Any] = {
        "hidden": (32,),
        "rollout_steps": 12,
        "batch_size": 64,
        "update_epochs": 4,
        "learning_rate": 1e-2,
        "learning_rate_end": None,
        "normalize_observations": True,
        "discount": 0.9,
        "entropy_weight": 0.001,
    }
    return PPOModule(PPOConfig(**{**small, **fields}), environment, seed=seed)


def q_table(environment: BatchedEnvironment, *, seed: int = 0, **fields: Any) -> QTableModule:
    small: dict[str, Any] = {
        "bins": {str(number): (0.5,) for number in range(environment.observation_dim)},
        "exploration_decay_steps": 4000,
        "rollout_steps": 5,
        "discount": 0.9,
    }
    return QTableModule(QTableConfig(**{**small, **fields}), environment, seed=seed)


@pytest.fixture(params=[dqn, ppo, q_table])
def build(request: pytest.FixtureRequest) -> Build:
    return request.param  # type: ignore[no-any-return]


def assert_same(one: Any, other: Any) -> None:
    """Compare nested states, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for part, others in zip(one, other, strict=True):
            assert_same(part, others)
    else:
        assert one == other


def state(trained: AgentModule) -> dict[str, Any]:
    optimizer = trained.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return {
        "weights": dict(trained.state_dict()),
        "learner": trained.learner.state_dict(),
        "optimizer": optimizer.state_dict()["state"],
    }


def act(trained: AgentModule, *arguments: torch.Tensor) -> torch.Tensor:
    assert isinstance(trained, DQNModule | PPOModule | QTableModule)
    return trained.network.eval().act(*arguments)


def test_same_seed_gives_the_same_bits_whatever_the_global_generator_holds(build: Build) -> None:
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        trained = build(chain(time_limit=3))
        trainer(2).fit(trained)
        states.append(state(trained))
    assert_same(*states)
    other = build(chain(time_limit=3), seed=1)
    trainer(2).fit(other)
    assert any(not torch.equal(value, states[0]["weights"][name]) for name, value in other.state_dict().items())


def cart_poles() -> GymnasiumScalars:
    return GymnasiumScalars([gymnasium.make("CartPole-v1") for _ in range(3)], steps_per_epoch=20)


@pytest.mark.parametrize("environment", [lambda: chain(time_limit=3), MaskedBandit, cart_poles])
def test_resume_equals_never_stopped_bit_for_bit(
    build: Build, environment: Callable[[], BatchedEnvironment], tmp_path: Path
) -> None:
    straight, stopped, resumed = (build(environment()) for _ in range(3))
    trainer(4).fit(straight)
    trainer(2, tmp_path).fit(stopped)
    torch.manual_seed(1234)
    trainer(4, tmp_path).fit(resumed, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert_same(state(resumed), state(straight))
    assert resumed.trainer.global_step == straight.trainer.global_step > 0


class Killed(Exception):
    """Stands for a kill."""


class KillAt(L.Callback):
    def __init__(self, env_steps: int) -> None:
        self._env_steps = env_steps

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *arguments: Any) -> None:
        assert isinstance(pl_module, AgentModule)
        if pl_module.learner.env_steps >= self._env_steps:
            raise Killed


def test_a_kill_within_an_epoch_loses_what_came_after_the_last_checkpoint_and_nothing_else(
    build: Build, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    straight, stopped, resumed = (build(chain(time_limit=3, steps_per_epoch=50)) for _ in range(3))
    trainer(2).fit(straight)
    with pytest.raises(Killed):
        trainer(2, None, EnvStepCheckpoint(path, every_env_steps=150), KillAt(560)).fit(stopped)
    saved = torch.load(path, weights_only=True)[CHECKPOINT_KEY]["learner"]
    counted = saved.get("env_steps") or saved["collector"]["env_steps"]
    assert 450 <= counted < 560
    trainer(2, None, EnvStepCheckpoint(tmp_path / "again.ckpt", every_env_steps=200)).fit(resumed, ckpt_path=path)
    assert_same(state(resumed), state(straight))


def test_a_kill_during_validation_validates_again(build: Build, tmp_path: Path) -> None:
    # Every rollout passes a multiple, an epoch's last one too.
    path, validated = tmp_path / "last.ckpt", list[int]()
    straight, stopped, resumed = (build(chain(time_limit=3, steps_per_epoch=50)) for _ in range(3))

    def validate_and_count(network: Any) -> dict[str, float]:
        validated.append(resumed.learner.env_steps)
        return {"reward": 0.0}

    def be_killed(network: Any) -> dict[str, float]:
        raise Killed

    straight._evaluate = lambda network: {"reward": 0.0}
    stopped._evaluate, resumed._evaluate = be_killed, validate_and_count
    trainer(2).fit(straight)
    with pytest.raises(Killed):
        trainer(2, None, EnvStepCheckpoint(path, every_env_steps=10)).fit(stopped)
    trainer(2, None, EnvStepCheckpoint(tmp_path / "again.ckpt", every_env_steps=10)).fit(resumed, ckpt_path=path)
    of_epoch = stopped.learner.env_steps
    assert validated == [of_epoch, 2 * of_epoch]
    assert_same(state(resumed), state(straight))


def test_checkpoints_are_written_once_for_each_so_many_environment_steps(build: Build, tmp_path: Path) -> None:
    class Counting(L.Trainer):
        written: list[int]

        def save_checkpoint(self, *arguments: Any, **fields: Any) -> None:
            assert isinstance(self.lightning_module, AgentModule)
            self.written.append(self.lightning_module.learner.env_steps)
            super().save_checkpoint(*arguments, **fields)

    fitted = Counting(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EnvStepCheckpoint(tmp_path / "last.ckpt", every_env_steps=100)],
        num_sanity_val_steps=0,
    )
    fitted.written = []
    fitted.fit(build(chain(steps_per_epoch=32)))
    # Epochs are of 256 steps; what their last rollouts pass is written at the epoch's end, by another callback.
    multiples = [env_steps // 100 for env_steps in fitted.written]
    assert len(set(multiples)) == len(multiples) and {*multiples, 256 // 100, 512 // 100} == {1, 2, 3, 4, 5}
    assert all(env_steps % 256 for env_steps in fitted.written)


def test_an_interval_below_one_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_env_steps=0 must be at least 1"):
        EnvStepCheckpoint(tmp_path / "last.ckpt", every_env_steps=0)


@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (dqn, {"epsilon_decay_steps": None}),
        (ppo, {"learning_rate_decay_steps": None, "learning_rate_end": 0.0}),
        (q_table, {"exploration_decay_steps": None}),
        (q_table, {"learning_rate_decay_steps": None, "learning_rate_end": 0.0}),
    ],
)
def test_a_schedule_whose_length_nobody_gave_is_refused(build: Build, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(fields))}=None .* over\(timesteps\)"):
        trainer(1).fit(build(chain(), **fields))


def test_learns_the_identity(build: Build) -> None:
    trained = build(IdentityEnvironment())
    trainer(6).fit(trained)
    assert act(trained, torch.eye(4)).tolist() == [0, 1, 2, 3]


def test_a_time_limit_does_not_hide_what_lies_beyond_it(build: Build) -> None:
    trained = build(forever())
    trainer(6).fit(trained)
    assert act(trained, torch.eye(2)[:1]).tolist() == [1]


class TakenForEnds(TabularEnvironment):
    """Says of every cut that it is an end."""

    def step(self, action: torch.Tensor) -> Transition:
        transition = super().step(action)
        ended = transition.terminated | transition.truncated
        return transition._replace(terminated=ended, truncated=torch.zeros_like(ended))


def test_who_takes_a_cut_for_an_end_chooses_otherwise(build: Build) -> None:
    environment = forever()
    environment.__class__ = TakenForEnds
    trained = build(environment)
    trainer(6).fit(trained)
    assert act(trained, torch.eye(2)[:1]).tolist() == [0]


def test_only_allowed_actions_are_taken_and_the_best_of_them_learned(build: Build) -> None:
    environment = MaskedBandit()
    trained = build(environment, discount=0.0)
    trainer(8).fit(trained)
    mask = environment.action_mask
    best = torch.where(mask, torch.arange(4), -1).amax(dim=1)
    assert torch.equal(act(trained, environment.observation, mask), best)


def test_steps_that_only_reset_do_not_reach_the_weights(build: Build) -> None:
    class Resets(TabularEnvironment):
        """After each end comes a step that only resets, with a reward that would turn everything upside down."""

        def reset(self, *, generator: torch.Generator) -> torch.Tensor:
            self.skipped = torch.zeros(self.num_envs, dtype=torch.bool)
            return super().reset(generator=generator)

        def step(self, action: torch.Tensor) -> Transition:
            self.skipped = ~self.skipped
            transition = super().step(action)
            paid = torch.where(self.skipped, 100.0 * (1 - action), transition.reward)
            return transition._replace(reward=paid)

    environment = Resets(
        next_state=[[0, 0]], reward=[[0.0, 1.0]], terminal=[False], start_states=[0], num_envs=16, steps_per_epoch=64
    )
    trained = build(environment, discount=0.0)
    trainer(4).fit(trained)
    assert act(trained, torch.ones(1, 1)).tolist() == [1]


def test_checkpoint_is_plain_data_and_its_weights_act_as_those_saved(build: Build, tmp_path: Path) -> None:
    trained = build(chain())
    trainer(1, tmp_path).fit(trained)
    path = tmp_path / "epoch=0.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert_same(checkpoint[CHECKPOINT_KEY]["learner"], trained.learner.state_dict())
    other = build(chain(), seed=5)
    other.network.load_state_dict(read_network_state(path))
    observation = torch.eye(6)
    assert torch.equal(act(other, observation), act(trained, observation))


def test_a_checkpoint_of_another_agent_is_refused(build: Build, tmp_path: Path) -> None:
    trainer(1, tmp_path).fit(build(chain()))
    with pytest.raises(PredactError, match=r"agent.discount=0.5, but the checkpoint was trained with 0.9"):
        trainer(2).fit(build(chain(), discount=0.5), ckpt_path=tmp_path / "epoch=0.ckpt")


def test_evaluation_does_not_touch_the_training(build: Build) -> None:
    def evaluate(network: Any) -> dict[str, float]:
        returns = episode_returns(network.act, chain(num_envs=4), num_episodes=8, seed=7)
        return {"return": float(returns.mean())}

    with_it, without = build(chain()), build(chain())
    with_it._evaluate = evaluate
    fitted = trainer(2)
    fitted.fit(with_it)
    trainer(2).fit(without)
    assert_same(state(with_it), state(without))
    assert 0 < fitted.callback_metrics["val/return"] <= 1


def test_a_vector_environment_that_resets_in_the_next_step_can_be_trained_on(build: Build) -> None:
    environment = GymnasiumBatch(gymnasium.make_vec("CartPole-v1", num_envs=4), steps_per_epoch=30)
    trained = build(environment)
    trainer(2).fit(trained)
    assert trained.learner.env_steps == 240


def test_names_choose_what_the_table_looks_at() -> None:
    config = QTableConfig(bins={"right": (0.5,)})
    trained = QTableModule(config, IdentityEnvironment(num_actions=2), seed=0, names=("left", "right"))
    trainer(10).fit(trained)
    assert isinstance(trained.network, QTable)
    assert trained.network.values.shape == (2, 2)
    assert act(trained, torch.eye(2)).tolist() == [0, 1]


def test_the_normaliser_travels_with_the_weights(tmp_path: Path) -> None:
    trained = ppo(cart_poles())
    trainer(2, tmp_path).fit(trained)
    network = PPONetwork(trained.config, observation_dim=4, num_actions=2)
    network.load_state_dict(read_network_state(tmp_path / "epoch=1.ckpt"))
    assert network.normalizer is not None
    assert network.normalizer.count == 2 * 20 * 3


@pytest.mark.gpu
def test_training_on_a_gpu_resumes_and_learns_with_an_environment_on_the_cpu(build: Build, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "accelerator": "gpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    stopped, resumed = (build(IdentityEnvironment()) for _ in range(2))
    kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    L.Trainer(max_epochs=3, callbacks=[kept], **fields).fit(stopped)
    L.Trainer(max_epochs=6, enable_checkpointing=False, **fields).fit(resumed, ckpt_path=tmp_path / "epoch=2.ckpt")
    assert resumed.learner.env_steps == 6 * 64 * 16
    assert act(resumed.cpu(), torch.eye(4)).tolist() == [0, 1, 2, 3]  # type: ignore[arg-type]


SOLVED = 475.0


def solves_cart_pole(trained: AgentModule, seed: int) -> float:
    trainer(1).fit(trained)
    assert isinstance(trained, DQNModule | PPOModule)
    environment = GymnasiumBatch(gymnasium.make_vec("CartPole-v1", num_envs=50), steps_per_epoch=1)
    returns = episode_returns(trained.network.eval().act, environment, num_episodes=50, seed=1000 + seed)
    return float(returns.mean())


def cart_pole(num_envs: int, env_steps: int) -> GymnasiumScalars:
    made = [gymnasium.make("CartPole-v1") for _ in range(num_envs)]
    return GymnasiumScalars(made, steps_per_epoch=env_steps // num_envs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ppo_solves_cart_pole_in_100000_steps(seed: int) -> None:
    assert solves_cart_pole(PPOModule(PPOConfig(), cart_pole(16, 100_000), seed=seed), seed) >= SOLVED


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_dqn_solves_cart_pole_in_50000_steps(seed: int) -> None:
    config = DQNConfig(
        hidden=(128, 128),
        n_step=3,
        batch_size=256,
        steps_per_update=4,
        rollout_steps=32,
        learning_starts=1000,
        target_update="soft",
        target_tau=0.01,
        epsilon_end=0.04,
        epsilon_decay_steps=8000,
    )
    assert solves_cart_pole(DQNModule(config, cart_pole(8, 50_000), seed=seed), seed) >= SOLVED
