"""The environments against each other, against the cluster, and against what Gymnasium and `rl` ask of them."""

from collections.abc import Callable
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.environment import (
    ENVIRONMENT_ID,
    AutoscaleBatch,
    AutoscaleConfig,
    AutoscaleEnv,
    AutoscaleVectorEnv,
    LoadConfig,
    ObservedCluster,
    register,
)
from predact.autoscaling.forecasts import Forecast, oracle
from predact.autoscaling.observations import Observer, check_layout, layout, observation_names
from predact.rl.environment import BatchedEnvironment, action_mask, next_action_mask
from predact.runtime.errors import PredactError

from .reference import Constant

REMOVE, NONE, ADD = range(3)
SHORT = AutoscaleConfig(episode_steps=12, history_steps=4, lookahead_steps=4)


def actions(num_envs: int, count: int, seed: int = 0, num_actions: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_actions, (count, num_envs))


def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(AutoscaleEnv(replace(SHORT, forecast="oracle")), skip_render_check=True)


def test_both_environments_are_registered_once() -> None:
    register()
    single = gymnasium.make(f"predact.autoscaling.environment:{ENVIRONMENT_ID}", config=SHORT)
    vector = gymnasium.make_vec(f"predact.autoscaling.environment:{ENVIRONMENT_ID}", num_envs=3, config=SHORT)
    assert isinstance(single.unwrapped, AutoscaleEnv) and isinstance(vector.unwrapped, AutoscaleVectorEnv)
    assert vector.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    assert vector.observation_space.shape == (3, len(observation_names(SHORT)))


def test_the_single_environment_is_the_first_of_a_vector() -> None:
    single, vector = AutoscaleEnv(SHORT), AutoscaleVectorEnv(4, SHORT)
    alone, together = single.reset(seed=5)[0], vector.reset(seed=5)[0]
    assert np.array_equal(alone, together[0])
    for action in actions(4, 2 * SHORT.episode_steps + 3):
        alone, reward, terminated, truncated, info = single.step(action[0])
        together, rewards, _, truncations, infos = vector.step(action)
        assert reward == rewards[0] and truncated == truncations[0] and not terminated
        assert info["p95_s"] == infos["p95_s"][0] and info["served"] == infos["served"][0]
        if truncated:
            assert np.array_equal(alone, infos["final_obs"][0])
            alone, _ = single.reset()
        assert np.array_equal(alone, together[0])


def test_an_episode_is_cut_off_at_its_length_and_never_ends_by_overload() -> None:
    vector = AutoscaleVectorEnv(3, replace(SHORT, initial_instances=1), pattern=Constant(1.0))
    vector.reset(seed=0)
    for step in range(1, 2 * SHORT.episode_steps + 1):
        _, _, terminated, truncated, info = vector.step(np.full(3, REMOVE))
        assert not terminated.any()
        assert truncated.all() == (step % SHORT.episode_steps == 0) == ("final_obs" in info)
    assert (info["dropped"] > 0.5 * info["arrivals"]).all()


def test_the_reward_is_minus_the_cost_in_units_of_the_largest_fleet() -> None:
    config = AutoscaleConfig(episode_steps=60)
    vector = AutoscaleVectorEnv(8, config, load=LoadConfig(pattern="poisson"))
    vector.reset(seed=1)
    parts = ("instances_usd", "slow_usd", "dropped_usd", "changes_usd")
    for action in actions(8, 50):
        _, reward, _, _, info = vector.step(action)
        expected = -sum(info[name].astype(np.float64) for name in parts) / config.reference_usd
        np.testing.assert_allclose(reward, expected, rtol=1e-5)
        np.testing.assert_allclose(info["instances_usd"], info["instance_s"] * 0.192 / 3600, rtol=1e-6)
        np.testing.assert_allclose(info["slow_usd"], info["slow"] * config.slow_usd, rtol=1e-6)
        np.testing.assert_allclose(info["changes_usd"], np.abs(info["change"]) * config.change_usd, rtol=1e-6)


@pytest.mark.parametrize("pattern", ["sine", "sinusoidal", "steady", "spike", "poisson", "random"])
def test_letting_the_service_crash_costs_more_than_doing_nothing(pattern: str) -> None:
    totals = []
    for action in (REMOVE, NONE):
        vector = AutoscaleVectorEnv(16, AutoscaleConfig(episode_steps=120), load=LoadConfig(pattern=pattern))
        vector.reset(seed=2)
        totals.append(sum(vector.step(np.full(16, action))[1].mean() for _ in range(120)))
    assert totals[0] < 2 * totals[1]


def test_a_step_of_overload_never_pays_more_than_one_without() -> None:
    overloaded, enough = (
        ObservedCluster(replace(SHORT, initial_instances=count), pattern=Constant(0.9), num_envs=16)
        for count in (1, 30)
    )
    for core in (overloaded, enough):
        core.reset(0)
    for _ in range(SHORT.episode_steps):
        assert (overloaded.step(np.full(16, NONE))[1] < enough.step(np.full(16, NONE))[1]).all()


def test_observations_by_hand() -> None:
    config = replace(
        SHORT, max_instances=20, initial_instances=10, action_delay_steps=1, cooldown_up_s=90, forecast="oracle"
    )
    core = ObservedCluster(config, pattern=Constant(0.3), num_envs=1)
    core.reset(0)
    first, _, _ = core.step(np.array([ADD]))
    second, _, _ = core.step(np.array([REMOVE]))
    third, _, _ = core.step(np.array([NONE]))
    one, two, three = (dict(zip(core.observer.names, seen[0].tolist(), strict=True)) for seen in (first, second, third))
    assert one["ready"] == pytest.approx(0.5) and one["pending_1"] == 1 and one["last_change"] == 1
    assert one["cooldown_up"] == pytest.approx(2 / 3) and one["booting_1"] == 0
    assert two["booting_1"] == pytest.approx(1 / 20) and two["pending_1"] == -1
    assert three["booting_2"] == pytest.approx(1 / 20) and three["ready"] == pytest.approx(9 / 20)
    assert three["draining"] == pytest.approx(1 / 20) and three["last_change"] == 0
    assert one["influx"] == pytest.approx(0.3, rel=0.1) and one["utilisation"] == pytest.approx(0.6, rel=0.1)
    assert one["p95"] == pytest.approx(core.cluster.last.p95_s[0] / config.slo_s, rel=0.01)
    # Of 20 instances 10 serve; the one to be launched is none yet.
    assert one["forecast_short_1"] == pytest.approx(0.3 - 10 / 20, abs=1 / 256)
    # One that has booted for 30 of 60 s serves from the next but one on; what is only decided does not.
    shorts = [two[f"forecast_short_{ahead}"] for ahead in range(1, 5)]
    assert shorts == pytest.approx([0.3 - 10 / 20, *[0.3 - 11 / 20] * 3], abs=1 / 256)
    assert three["forecast_short_1"] == pytest.approx(0.3 - 10 / 20, abs=1 / 256)
    assert one["forecast_error"] == pytest.approx(one["influx"] - 0.3, abs=1 / 256) and one["forecast_error"] != 0
    # Of a count with mean 0.3 · 400 · 30, the 90th percentile lies 1.28 of its square root above, of 400 · 30.
    assert one["forecast_spread_4"] == pytest.approx(1.2816 * (0.3 / (400 * 30)) ** 0.5, rel=0.01)
    angle = 2 * np.pi * core.cluster.day_phase()[0]
    assert (three["day_sin"], three["day_cos"]) == pytest.approx((np.sin(angle), np.cos(angle)), abs=1e-5)
    assert one["queue"] == one["dropped"] == 0


def test_observations_stay_within_the_declared_space_in_the_worst_overload() -> None:
    config = replace(SHORT, episode_steps=40, history_steps=40, forecast="persistence", action_changes=(-5, -1, 0, 5))
    core = ObservedCluster(config, pattern=Constant((30.0, 0.0) * 60), num_envs=4)
    seen = [core.reset(0)]
    seen += [core.step(action)[0] for action in actions(4, 40, num_actions=4)]
    assert all(core.observation_space.contains(row) for step in seen for row in step)
    assert max(np.abs(step).max() for step in seen) > 5


def test_two_states_that_go_on_differently_look_different() -> None:
    config = replace(SHORT, initial_instances=10, action_delay_steps=2, boot_s=90.0)
    seen = {}
    for first in (ADD, NONE, REMOVE):
        for second in (ADD, NONE, REMOVE):
            core = ObservedCluster(config, pattern=Constant(0.3), num_envs=1)
            core.reset(0)
            core.step(np.array([first]))
            seen[first, second] = core.step(np.array([second]))[0].tobytes()
    # Within the cooldown a second removal is none.
    assert seen.pop((REMOVE, REMOVE)) == seen[REMOVE, NONE]
    assert len(set(seen.values())) == len(seen)


def test_a_forecaster_of_ones_own_is_asked_when_it_is_due_and_its_age_is_seen() -> None:
    asked: list[int] = []

    def ramp(cluster: Cluster, steps: int, /) -> Forecast:
        asked.append(cluster.step_index)
        p50 = np.tile(60.0 * np.arange(1, steps + 1), (cluster.num_envs, 1))
        return Forecast(p50, 2 * p50)

    config = replace(SHORT, forecast="ramp", forecast_steps=2, forecast_every_steps=4)
    core = ObservedCluster(config, pattern=Constant(0.5), forecaster=ramp, num_envs=2)
    seen = [core.reset(0)] + [core.step(np.full(2, NONE))[0] for _ in range(5)]
    assert asked == [0, 4]
    names = core.observer.names
    short, spread = ([names.index(f"forecast_{what}_{k}") for k in (1, 2)] for what in ("short", "spread"))
    assert seen[3][1, short] + seen[3][1, names.index("ready")] == pytest.approx([0.1, 0.2])
    assert seen[3][1, spread] == pytest.approx([0.1, 0.2])
    ages = [float(step[0, names.index("forecast_age")]) for step in seen]
    assert ages == [0, 0.25, 0.5, 0.75, 0, 0.25]


def test_what_came_is_compared_with_the_earliest_forecast_of_it() -> None:
    def ramp(cluster: Cluster, steps: int, /) -> Forecast:
        p50 = np.tile(60.0 * (cluster.step_index + 0.1 * np.arange(1, steps + 1)), (cluster.num_envs, 1))
        return Forecast(p50, p50)

    def errors(every: int) -> list[float]:
        config = replace(SHORT, forecast="ramp", forecast_steps=3, forecast_every_steps=every)
        core = ObservedCluster(config, pattern=Constant(0.5), forecaster=ramp, num_envs=1)
        column, influx = core.observer.names.index("forecast_error"), core.observer.names.index("influx")
        seen = [core.reset(0)] + [core.step(np.array([NONE]))[0] for _ in range(6)]
        assert seen[0][0, column] == 0
        return [float(row[0, influx] - row[0, column]) for row in seen[1:]]

    # In tenths of the largest fleet's 600 a second: the first three are forecast at the start, from then on the
    # interval t was forecast at t - 3, or where forecasts are renewed every second decision, at the first that reached.
    np.testing.assert_allclose(errors(1), [0.01, 0.02, 0.03, 0.13, 0.23, 0.33], atol=1e-6)
    np.testing.assert_allclose(errors(2), [0.01, 0.02, 0.03, 0.22, 0.23, 0.42], atol=1e-6)


@pytest.mark.parametrize(("steps", "every"), [(4, 1), (4, 3), (2, 5), (1, 1)])
@pytest.mark.parametrize("cut", range(7))
def test_looking_again_and_going_on_from_a_saved_state_show_the_same(steps: int, every: int, cut: int) -> None:
    config = replace(SHORT, forecast="persistence", forecast_steps=steps, forecast_every_steps=every)
    one, other = (ObservedCluster(config, load=LoadConfig(pattern="random"), num_envs=2) for _ in range(2))
    seen = one.reset(4)
    for _ in range(cut):
        seen, _, _ = one.step(np.full(2, ADD))
    assert np.array_equal(one.observer(one.cluster), seen)
    other.reset(5)
    other.load_state_dict(one.state_dict())
    assert np.array_equal(other.observer(other.cluster), seen)
    for _ in range(5):
        assert np.array_equal(one.step(np.full(2, NONE))[0], other.step(np.full(2, NONE))[0])


def test_a_state_with_another_forecast_is_refused_and_changes_nothing() -> None:
    config = replace(SHORT, forecast="persistence")
    core = ObservedCluster(config, pattern=Constant(0.5), num_envs=2)
    core.reset(1)
    before = core.observer(core.cluster)
    for other in (replace(config, forecast="none"), replace(config, forecast_steps=2)):
        saved = ObservedCluster(other, pattern=Constant(0.5), num_envs=2)
        saved.reset(2)
        saved.step(np.full(2, NONE))
        with pytest.raises(PredactError, match=r"of another kind \(forecast: \(\d, 2\), not \(13, 2\)\); start afresh"):
            core.load_state_dict(saved.state_dict())
        assert np.array_equal(core.observer(core.cluster), before)


def test_an_observer_that_comes_late_knows_of_no_error_until_it_has_forecast() -> None:
    config = replace(SHORT, forecast="oracle", forecast_every_steps=3)
    core = ObservedCluster(config, pattern=Constant(0.5), num_envs=1)
    core.reset(0)
    for _ in range(4):
        core.step(np.array([NONE]))
    late = Observer(config, oracle, num_envs=1)
    error, short, ready = (late.names.index(name) for name in ("forecast_error", "forecast_short_1", "ready"))
    seen = late(core.cluster)
    assert seen[0, error] == 0 and seen[0, short] + seen[0, ready] == pytest.approx(0.5, abs=1 / 256)
    core.step(np.array([NONE]))
    assert abs(late(core.cluster)[0, error]) < 0.1


@pytest.mark.parametrize("rate", [np.nan, np.inf])
def test_a_forecast_that_is_no_number_is_refused(rate: float) -> None:
    def broken(cluster: Cluster, steps: int, /) -> Forecast:
        return Forecast(np.full((cluster.num_envs, steps), 1.0), np.full((cluster.num_envs, steps), rate))

    core = ObservedCluster(replace(SHORT, forecast="mine"), pattern=Constant(0.5), forecaster=broken, num_envs=2)
    with pytest.raises(PredactError, match="forecast='mine' returned what is no number"):
        core.reset(0)


def test_a_forecast_below_nothing_stays_in_the_space() -> None:
    def sunken(cluster: Cluster, steps: int, /) -> Forecast:
        return Forecast(np.full((cluster.num_envs, steps), -1e6), np.full((cluster.num_envs, steps), -2e6))

    core = ObservedCluster(replace(SHORT, forecast="mine"), pattern=Constant(0.5), forecaster=sunken, num_envs=2)
    core.reset(0)
    assert all(core.observation_space.contains(row) for row in core.step(np.full(2, NONE))[0])


def test_a_forecast_of_another_shape_is_refused() -> None:
    wrong = Forecast(np.zeros((2, 3)), np.zeros((2, 3)))
    core = ObservedCluster(
        replace(SHORT, forecast="wrong"), pattern=Constant(0.5), forecaster=lambda cluster, steps: wrong, num_envs=2
    )
    with pytest.raises(PredactError, match=r"the forecaster returned shape \(2, 3\), not \(2, 4\)"):
        core.reset(0)


def test_an_unknown_forecast_is_refused_in_one_line() -> None:
    with pytest.raises(PredactError, match="forecast='arima' is none of none, persistence, seasonal, oracle, lstm"):
        AutoscaleEnv(replace(SHORT, forecast="arima"))


def test_persistence_says_what_came_last() -> None:
    core = ObservedCluster(replace(SHORT, forecast="persistence"), pattern=Constant(0.5), num_envs=3)
    core.reset(0)
    seen, _, _ = core.step(np.full(3, NONE))
    names = core.observer.names
    short, ready, influx = (seen[:, names.index(name)] for name in ("forecast_short_3", "ready", "influx"))
    np.testing.assert_allclose(short, influx - ready, atol=1e-6)


def test_an_agent_of_another_environment_is_refused_in_one_line() -> None:
    saved = layout(SHORT)
    check_layout(saved, replace(SHORT, slo_s=2.0))
    with pytest.raises(PredactError, match=r"action_changes=\(-1, 0, 1\), the environment has \(-2, 0, 2\)"):
        check_layout(saved, replace(SHORT, action_changes=(-2, 0, 2)))
    with pytest.raises(PredactError, match="the agent observes 16 numbers, the environment gives 26") as refused:
        check_layout(saved, replace(SHORT, forecast="oracle"))
    assert "new: forecast_short_1" in str(refused.value) and "\n" not in str(refused.value)


@pytest.fixture(params=[1, 5])
def batch(request: pytest.FixtureRequest) -> Callable[[], AutoscaleBatch]:
    config = replace(SHORT, action_changes=(-2, -1, 0, 1, 2), forecast="persistence", forecast_every_steps=3)
    return lambda: AutoscaleBatch(config, num_envs=request.param, load=LoadConfig(pattern="random"))


def walk(environment: BatchedEnvironment, seed: int, count: int) -> list[torch.Tensor]:
    drawn = actions(environment.num_envs, count, seed, environment.num_actions)
    parts = []
    for action in drawn:
        transition = environment.step(torch.from_numpy(action))
        parts += [*transition, environment.observation]
    return parts


def test_the_batch_is_what_it_declares(batch: Callable[[], AutoscaleBatch]) -> None:
    environment: BatchedEnvironment = batch()
    observation = environment.reset(generator=torch.Generator().manual_seed(0))
    assert torch.equal(observation, environment.observation)
    for action in actions(environment.num_envs, 30, num_actions=5):
        mask = action_mask(environment)
        assert mask is not None and mask.shape == (environment.num_envs, 5) and mask[:, 2].all()
        transition = environment.step(torch.from_numpy(action))
        ended = transition.terminated | transition.truncated
        for seen in (transition.next_observation, environment.observation):
            assert seen.shape == (environment.num_envs, environment.observation_dim) and seen.dtype == torch.float32
        assert transition.reward.dtype == torch.float32 and not transition.terminated.any()
        assert torch.equal(environment.observation[~ended], transition.next_observation[~ended])
        following = next_action_mask(environment, ended)
        assert following is not None and following.any(dim=1).all()


def test_a_batch_repeats_with_its_seed_and_writes_to_nothing_it_gave(batch: Callable[[], AutoscaleBatch]) -> None:
    first, second = batch(), batch()
    for environment in (first, second):
        environment.reset(generator=torch.Generator().manual_seed(3))
    given = walk(first, 0, 30)
    copies = [tensor.clone() for tensor in given]
    assert all(map(torch.equal, copies, walk(second, 0, 30)))
    walk(first, 1, 20)
    assert all(map(torch.equal, given, copies))


@pytest.mark.parametrize("steps", [0, 7, 12, 20])
def test_a_restored_batch_goes_on_as_the_saved_one(batch: Callable[[], AutoscaleBatch], steps: int) -> None:
    first, second = batch(), batch()
    first.reset(generator=torch.Generator().manual_seed(0))
    walk(first, 1, steps)
    second.reset(generator=torch.Generator().manual_seed(99))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.observation, second.observation) and torch.equal(first.action_mask, second.action_mask)
    assert all(map(torch.equal, walk(first, 2, 30), walk(second, 2, 30)))


def test_masked_actions_change_nothing() -> None:
    config = replace(SHORT, initial_instances=30, cooldown_down_s=60)
    vector = AutoscaleVectorEnv(1, config, pattern=Constant(0.5))
    _, info = vector.reset(seed=0)
    assert info["action_mask"].tolist() == [[True, True, False]]
    changes = [int(vector.step(np.array([action]))[-1]["change"][0]) for action in (ADD, REMOVE, REMOVE, REMOVE)]
    assert changes == [0, -1, 0, -1]


def test_larger_steps_are_done_as_far_as_they_go() -> None:
    config = replace(SHORT, initial_instances=28, action_changes=(-5, 0, 5))
    vector = AutoscaleVectorEnv(1, config, pattern=Constant(0.5))
    vector.reset(seed=0)
    assert vector.step(np.array([2]))[-1]["change"].tolist() == [2]
