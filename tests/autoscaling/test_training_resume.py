"""The task behind `autoscaling_...`, interrupted: what it goes on from, and what it refuses to."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from configs import load_preset, run
from predact.runtime.errors import PredactError
from predact.runtime.logging import setup_logging
from predact.runtime.results import Results
from tests.autoscaling.tiny import (
    AGENTS,
    CLUSTER,
    DQN,
    FAIL_AT,
    LOAD,
    PPO,
    TRAINING,
    UNMEASURED,
    FailAfter240Steps,
    FailAfter11000Steps,
    direct,
    env_steps_of,
    finished,
    overrides,
    undraw,
    with_callback,
)
from tests.detection.tiny import (
    TRAINER,
    FailInFirstEpoch,
    InterruptInSecondEpoch,
    assert_equal_tensors,
    leftovers,
    model_tensors,
    process,
    workplace,
)
from tests.detection.tiny import with_callback as with_epoch_callback

NAME = "autoscaling_ppo_sine"
MODEL = Path(f"saved_models/{NAME}.pth")
CHECKPOINTS = Path(f"saved_models/{NAME}_checkpoints")
KINDS = sorted(AGENTS)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    undraw(monkeypatch)
    with workplace(tmp_path):
        setup_logging()
        yield


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Tensors of the agent of a run that nothing disturbed."""
    return model_tensors(finished("ppo", tmp_path_factory) / MODEL.name)


def log_of(results: Results) -> str:
    return (results.folder / "run.log").read_text()


@pytest.mark.parametrize("every_steps", [60, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_failed_in_the_middle_of_an_epoch_resumed_equals_one_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, kind: str, every_steps: int
) -> None:
    training = replace(TRAINING, checkpoint_every_steps=every_steps)
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(agent=AGENTS[kind], training=training, trainer=with_callback(FailAfter240Steps))
    # Epochs are of 160 steps.
    reached = env_steps_of(CHECKPOINTS / "last.ckpt")
    assert reached == 160 if every_steps == 10_000 else 180 <= reached <= FAIL_AT + 36
    resumed = direct(agent=AGENTS[kind], training=training, resume=True)
    assert "resuming from" in log_of(resumed)
    assert_equal_tensors(model_tensors(MODEL), model_tensors(finished(kind, tmp_path_factory) / MODEL.name))
    assert env_steps_of(CHECKPOINTS / "last.ckpt") == 480


def test_every_ten_thousand_steps_there_is_a_checkpoint_to_go_on_from() -> None:
    # Four epochs of 3,200 steps, in rollouts of 720.
    agent = replace(PPO, batch_size=240)
    fields: dict[str, Any] = {"agent": agent, "training": replace(TRAINING, num_envs=80, timesteps=12_800)}
    assert TRAINING.checkpoint_every_steps == 10_000
    direct(**fields, run=replace(UNMEASURED, name="whole"))
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(**fields, trainer=with_callback(FailAfter11000Steps))
    assert env_steps_of(CHECKPOINTS / "last.ckpt") == 3 * 3_200 + 720
    direct(**fields, resume=True)
    assert_equal_tensors(model_tensors(MODEL), model_tensors(Path("saved_models/whole.pth")))


def test_an_agent_that_observes_forecasts_and_what_they_missed_goes_on_with_them() -> None:
    cluster = replace(CLUSTER, forecast="persistence", forecast_every_steps=4)
    fields: dict[str, Any] = {"cluster": cluster, "training": replace(TRAINING, checkpoint_every_steps=60)}
    direct(**fields, run=replace(UNMEASURED, name="whole"))
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(**fields, trainer=with_callback(FailAfter240Steps))
    # In the middle of an episode, between two forecasts.
    in_each = env_steps_of(CHECKPOINTS / "last.ckpt") // TRAINING.num_envs
    assert in_each % CLUSTER.episode_steps % cluster.forecast_every_steps != 0
    direct(**fields, resume=True)
    assert_equal_tensors(model_tensors(MODEL), model_tensors(Path("saved_models/whole.pth")))


def test_a_killed_run_resumed_equals_one_never_stopped(whole: dict[str, Tensor], tmp_path: Path) -> None:
    code = """
from dataclasses import replace
from tests.autoscaling.tiny import TRAINING, KillAfter240Steps, direct, with_callback
direct(training=replace(TRAINING, checkpoint_every_steps=60), trainer=with_callback(KillAfter240Steps))
"""
    with process(code, tmp_path) as killed:
        output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output
    assert leftovers(tmp_path) == [] and not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("results.json"))
    assert env_steps_of(CHECKPOINTS / "last.ckpt") % 160 != 0
    direct(training=replace(TRAINING, checkpoint_every_steps=60), resume=True)
    assert_equal_tensors(model_tensors(MODEL), whole)


def test_ctrl_c_leaves_nothing_half_written_and_what_is_done_is_not_done_again(
    whole: dict[str, Tensor], tmp_path: Path
) -> None:
    callback = f"trainer.callbacks=[tests.detection.tiny.{InterruptInSecondEpoch.__name__}]"
    with pytest.raises(KeyboardInterrupt):
        run(load_preset(NAME, *overrides("run.evaluate=false", callback)))
    assert leftovers(tmp_path) == []
    assert not [path for name in ("*.pth", "results.json", "report.html") for path in tmp_path.rglob(name)]
    resumed = direct(resume=True)
    assert "after epoch 1" in log_of(resumed)
    assert_equal_tensors(model_tensors(MODEL), whole)
    # As after Ctrl-C while the report is written: all epochs are done, and what follows them is made again.
    MODEL.unlink()
    again = direct(resume=True)
    assert again.data["metrics"] == resumed.data["metrics"] and again.score == resumed.score
    assert_equal_tensors(model_tensors(MODEL), whole)
    assert "Nothing was trained in this run" in (again.folder / "report.html").read_text(encoding="utf-8")


def test_a_run_that_failed_before_its_first_checkpoint_is_not_resumed_from_another(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    shutil.copytree(finished("ppo", tmp_path_factory), tmp_path / "saved_models")
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(trainer=with_epoch_callback(FailInFirstEpoch))
    assert {path.name for path in (CHECKPOINTS / "previous").iterdir()} == {"best.ckpt", "last.ckpt"}
    lines = log_of(direct(resume=True))
    assert "nothing to resume" in lines and "resuming from" not in lines


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"cluster": replace(CLUSTER, boot_s=90.0)}, "cluster.boot_s=60.0, this one has cluster.boot_s=90.0"),
        ({"data": replace(LOAD, pattern="spike")}, "data.pattern=sine, this one has data.pattern=spike"),
        ({"agent": replace(PPO, discount=0.9)}, "agent.discount=0.98, this one has agent.discount=0.9"),
        ({"agent": DQN}, "agent.activation=tanh, this one has agent.activation=None"),
        ({"training": replace(TRAINING, num_envs=5)}, "training.num_envs=4, this one has training.num_envs=5"),
        ({"training": replace(TRAINING, timesteps=960)}, "timesteps=480, this one has training.timesteps=960"),
        ({"trainer": replace(TRAINER, max_epochs=5)}, "epochs=3, this one has epochs=5"),
        ({"trainer": replace(TRAINER, early_stopping_patience=1)}, "early_stopping_patience=None, this one has"),
        ({"seed": 1}, "seed=0, this one has seed=1"),
    ],
)
def test_a_resume_that_could_not_equal_one_run_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    shutil.copytree(finished("ppo", tmp_path_factory), tmp_path / "saved_models")
    with pytest.raises(PredactError, match=line) as caught:
        direct(**({"resume": True} | changes))
    assert "\n" not in str(caught.value)
