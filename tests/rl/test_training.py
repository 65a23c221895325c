import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.environment import BatchedEnvironment
from predact.rl.training import CHECKPOINT_KEY, DQNModule, read_network_state
from predact.runtime.errors import PredactError

from .toy_environments import ContextualBandit, chain, forever

# Resuming writes beside what the stopped run wrote.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def trainer(
    epochs: int, folder: Path | None = None, *, callbacks: list[L.Callback] | None = None, **fields: Any
) -> L.Trainer:
    kept = [ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)] if folder else []
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*kept, *(callbacks or [])],
        enable_checkpointing=bool(folder or callbacks),
        **fields,
    )


SMALL: dict[str, Any] = {
    "hidden": (16,),
    "batch_size": 16,
    "steps_per_update": 8,
    "learning_starts": 16,
    "buffer_size": 300,
    "epsilon_decay_steps": 400,
    "target_every_updates": 7,
}
VARIANTS: list[dict[str, Any]] = [
    {"discount": 0.0},
    {"discount": 0.9, "n_step": 3, "dueling": True, "steps_per_update": 12},
    {"discount": 0.9, "double": False, "target_update": "soft", "rollout_steps": 3, "loss": "mse"},
]


def module(environment: BatchedEnvironment | None = None, *, seed: int = 0, **fields: Any) -> DQNModule:
    return DQNModule(DQNConfig(**{**SMALL, **fields}), environment or chain(time_limit=3), seed=seed)


def assert_same(one: Any, other: Any) -> None:
    """Compare nested states, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


def state(trained: DQNModule) -> dict[str, Any]:
    optimizer = trained.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return {
        "weights": dict(trained.state_dict()),
        "learner": trained.learner.state_dict(),
        "adam": optimizer.state_dict()["state"],
    }


@pytest.mark.parametrize("fields", VARIANTS)
def test_same_seed_gives_the_same_bits_whatever_the_global_generator_holds(fields: dict[str, Any]) -> None:
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        trained = module(**fields)
        trainer(2).fit(trained)
        states.append(state(trained))
    assert_same(*states)
    other = module(seed=1, **fields)
    trainer(2).fit(other)
    assert not torch.equal(other.network.head.weight, states[0]["weights"]["network.head.weight"])


@pytest.mark.parametrize("fields", VARIANTS)
def test_resume_equals_never_stopped_bit_for_bit(fields: dict[str, Any], tmp_path: Path) -> None:
    straight, stopped, resumed = (module(**fields) for _ in range(3))
    trainer(6).fit(straight)
    trainer(3, tmp_path).fit(stopped)
    torch.manual_seed(1234)
    trainer(6, tmp_path).fit(resumed, ckpt_path=tmp_path / "epoch=2.ckpt")
    assert_same(state(resumed), state(straight))
    assert resumed.trainer.global_step == straight.trainer.global_step
    assert resumed.learner.env_steps == 6 * 16 * 8


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization and every_n_train_steps")
@pytest.mark.parametrize("global_step", [5, 15, 16])
def test_resume_within_an_epoch_equals_never_stopped(global_step: int, tmp_path: Path) -> None:
    def every_step() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)

    straight, resumed = module(), module()
    trainer(2, callbacks=[every_step()]).fit(straight)
    trainer(2, callbacks=[every_step()]).fit(resumed, ckpt_path=tmp_path / f"step={global_step}.ckpt")
    assert_same(state(resumed), state(straight))


def test_a_second_fit_goes_on_from_the_first() -> None:
    trained = module()
    trainer(1).fit(trained)
    trainer(1).fit(trained)
    assert trained.learner.env_steps == 2 * 16 * 8


def test_zero_discount_trains_to_the_bits_of_the_full_computation() -> None:
    # 1e-30 of a value vanishes beside rewards of the order of 1, but nothing is skipped.
    skipped, full = (module(ContextualBandit(steps_per_epoch=8), discount=discount) for discount in (0.0, 1e-30))
    trainer(3).fit(skipped)
    trainer(3).fit(full)
    assert_same(dict(skipped.network.state_dict()), dict(full.network.state_dict()))
    assert_same(skipped.learner.state_dict(), full.learner.state_dict())


def test_learns_a_contextual_bandit() -> None:
    environment = ContextualBandit()
    trained = DQNModule(
        DQNConfig(discount=0.0, hidden=(32, 32), epsilon_decay_steps=10_000, learning_rate=3e-3), environment, seed=0
    )
    trainer(20).fit(trained)
    contexts = environment.contexts(2000, torch.Generator().manual_seed(7))
    rewards = environment.rewards(contexts)
    earned = rewards.gather(1, trained.network.eval().act(contexts).unsqueeze(1)).mean()
    random = rewards.mean()
    assert rewards.amax(dim=1).mean() - earned < 0.01
    assert earned - random > 0.2


def test_learns_the_values_of_value_iteration() -> None:
    environment = chain(num_envs=16, steps_per_epoch=64)
    trained = DQNModule(
        DQNConfig(
            discount=0.8,
            hidden=(32,),
            steps_per_update=8,
            epsilon_end=0.5,
            target_every_updates=20,
            learning_rate=3e-3,
            loss="mse",
        ),
        environment,
        seed=0,
    )
    trainer(10).fit(trained)
    learned = trained.network(torch.eye(6))[:5]
    torch.testing.assert_close(learned, environment.optimal_values(0.8)[:5].float(), atol=0.03, rtol=0)
    # .8 ** 4 = .41 for going right all the way beats .1 at once.
    assert trained.network.act(torch.eye(6))[:5].tolist() == [1, 1, 1, 1, 1]


def test_a_time_limit_does_not_hide_what_lies_beyond_it() -> None:
    environment = forever()
    for n_step in (1, 3):
        trained = DQNModule(
            DQNConfig(
                discount=0.9,
                hidden=(16,),
                steps_per_update=4,
                target_every_updates=10,
                n_step=n_step,
                learning_rate=1e-2,
                loss="mse",
            ),
            environment,
            seed=0,
        )
        trainer(4).fit(trained)
        values = trained.network(torch.eye(2))[0]
        torch.testing.assert_close(values, torch.tensor([0.6, 1.0]), atol=0.05, rtol=0)


def test_checkpoint_is_plain_data_and_holds_the_learner(tmp_path: Path) -> None:
    trained = module()
    trainer(1, tmp_path).fit(trained)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    assert_same(checkpoint[CHECKPOINT_KEY]["learner"], trained.learner.state_dict())
    assert checkpoint["hyper_parameters"]["agent"]["hidden"] == [16]
    assert checkpoint["global_step"] == trained.trainer.global_step > 0


def test_checkpoint_of_weights_alone_leaves_the_buffer_out_and_is_no_start_for_resuming(tmp_path: Path) -> None:
    fitted = trainer(1)
    trained = module()
    fitted.fit(trained)
    path = tmp_path / "weights.ckpt"
    fitted.save_checkpoint(path, weights_only=True)
    assert CHECKPOINT_KEY not in torch.load(path, weights_only=True)
    with pytest.raises(PredactError, match="holds no agent"):
        trainer(2).fit(module(), ckpt_path=path)


def test_weights_read_from_a_checkpoint_act_as_the_network_saved(tmp_path: Path) -> None:
    trained = module()
    trainer(1, tmp_path).fit(trained)
    network = QNetwork(trained.config, observation_dim=6, num_actions=2)
    network.load_state_dict(read_network_state(tmp_path / "epoch=0.ckpt"))
    assert torch.equal(network(torch.eye(6)), trained.network(torch.eye(6)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": (8,)}, r"agent.hidden=\[8\].*\[16\]"),
        ({"learning_rate": 0.5}, r"agent.learning_rate=0.5.*0.001"),
        ({"seed": 3}, "seed=3.*0"),
        ({"environment": chain(num_envs=4)}, "num_envs=4.*8"),
        ({"environment": ContextualBandit(num_envs=8)}, "observation_dim=3.*6"),
    ],
)
def test_a_checkpoint_of_another_agent_or_environment_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    trainer(1, tmp_path).fit(module())
    with pytest.raises(PredactError, match=message):
        trainer(2).fit(module(**fields), ckpt_path=tmp_path / "epoch=0.ckpt")


def test_more_epochs_than_the_checkpoint_was_trained_for_are_no_other_agent(tmp_path: Path) -> None:
    trainer(1, tmp_path).fit(module(epochs=1))
    resumed = module(epochs=2)
    trainer(2, tmp_path).fit(resumed, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert resumed.current_epoch == 2


def test_metrics_are_logged_once_an_epoch_and_evaluation_sees_the_network_in_eval_mode() -> None:
    seen: list[bool] = []

    def evaluate(network: QNetwork) -> dict[str, float]:
        seen.append(network.training)
        return {"f1": 0.1 * len(seen)}

    trained = DQNModule(DQNConfig(**SMALL), chain(), seed=0, evaluate=evaluate)
    fitted = trainer(3)
    fitted.fit(trained)
    logged = {name: value.item() for name, value in fitted.callback_metrics.items()}
    assert seen == [False] * 3
    assert logged["val/f1"] == pytest.approx(0.3)
    assert logged["train/env_steps"] == 3 * 16 * 8
    # The step before `learning_starts` is reached pays for nothing.
    assert logged["train/updates"] == trained.learner.updates == 3 * 16 - 1
    assert logged["train/epsilon"] == pytest.approx(1 - 0.95 * 384 / 400)
    assert {"train/loss", "train/q", "train/reward"} <= logged.keys()
    assert fitted.global_step == 3 * 16 - 1


def test_a_reward_that_is_not_finite_stops_the_training() -> None:
    environment = chain()
    environment.reward[0, 0] = torch.nan
    with pytest.raises(PredactError, match="train/reward=nan"):
        trainer(2).fit(module(environment))


def test_another_precision_is_refused() -> None:
    with pytest.raises(PredactError, match="bf16-mixed"):
        trainer(1, precision="bf16-mixed").fit(module())


def test_the_learner_is_not_there_before_training() -> None:
    with pytest.raises(RuntimeError, match=r"Trainer\.fit"):
        _ = module().learner
