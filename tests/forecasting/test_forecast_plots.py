"""The picture of a forecast shows its own numbers, a panel a channel."""

import numpy as np
import pytest

from predact.forecasting.forecast_plots import forecast_panels, write_forecast_plot

from .small_forecaster import COLUMNS, small_forecaster, small_series


@pytest.fixture(scope="module")
def forecaster():
    forecaster = small_forecaster()
    forecaster.update(small_series(60))
    return forecaster


@pytest.mark.parametrize("steps", [1, 6])
def test_a_panel_shows_point_and_band_of_its_channel(forecaster, steps):
    made = forecaster.forecast(steps)
    figure = forecast_panels(made, history=forecaster.history())
    # Drawn from the bottom up.
    for axes, channel in zip(figure.axes, reversed(range(len(COLUMNS))), strict=True):
        past, point, lower, upper = (np.asarray(line.get_ydata()) for line in axes.lines[:4])
        np.testing.assert_array_equal(point, made.point[:, channel])
        np.testing.assert_array_equal(lower, made.lower[:, channel])
        np.testing.assert_array_equal(upper, made.upper[:, channel])
        assert past[-1] == pytest.approx(small_series(60)[-1, channel], rel=1e-5)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_suffix_decides_the_format(forecaster, tmp_path, suffix, start):
    path = tmp_path / f"next{suffix}"
    write_forecast_plot(path, forecaster.forecast(), history=forecaster.history())
    assert path.read_bytes().startswith(start)
