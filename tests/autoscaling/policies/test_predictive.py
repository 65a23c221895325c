"""Rules by load and forecast, by hand."""

import numpy as np
import pytest

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import Forecast
from predact.autoscaling.policies.predictive import (
    Predictive,
    PredictiveConfig,
    SquareRoot,
    SquareRootConfig,
)
from predact.runtime.errors import PredactError

from .views import view

CONFIG = AutoscaleConfig(action_changes=tuple(range(-20, 21)))
CHANGES = np.array(CONFIG.action_changes)


def test_square_root_staffing_by_hand() -> None:
    # 160 requests a second of .1 s: 16 busy servers and 4 or 8 spare, two in an instance.
    seen = view(ready=[10], arrivals_per_s=160.0)
    assert CHANGES[SquareRoot(CONFIG, SquareRootConfig(spare=1.0))(seen)] == 0
    assert CHANGES[SquareRoot(CONFIG)(seen)] == 2


def test_the_highest_forecast_until_a_launch_is_ready_decides() -> None:
    asked = []

    def outlook(steps: int) -> Forecast:
        asked.append(steps)
        p50 = np.array([[100.0, 130.0, 160.0, 999.0], [160.0, 20.0, 20.0, 20.0]])[:, :steps]
        return Forecast(p50, p50 * 1.1)

    seen = view(ready=[10, 10])
    # A boot lasts two decisions: this interval and two more. 160 a second are 10 instances at 80 % of 20, 176 are 11.
    assert CHANGES[Predictive(CONFIG, outlook, PredictiveConfig(quantile="p50"))(seen)].tolist() == [0, 0]
    assert CHANGES[Predictive(CONFIG, outlook)(seen)].tolist() == [1, 1]
    assert asked == [3, 3]
    late = AutoscaleConfig(boot_s=300.0, action_delay_steps=2)
    assert Predictive(late, outlook).steps == 13


@pytest.mark.parametrize("rates", [np.ones((2, 2)), np.full((1, 3), np.nan)])
def test_a_forecast_that_is_none_is_refused_in_one_line(rates: np.ndarray) -> None:
    policy = Predictive(CONFIG, lambda steps: Forecast(rates, rates))
    with pytest.raises(PredactError, match="the forecaster returned shape") as refused:
        policy(view())
    assert "\n" not in str(refused.value)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="utilisation=0 must be above 0 and at most 1"):
        PredictiveConfig(utilisation=0)
    with pytest.raises(ValueError, match="spare=-1 must not be negative"):
        SquareRootConfig(spare=-1)
