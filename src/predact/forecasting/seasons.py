"""How many values a series' cycle has, from its autocorrelation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import detrend, find_peaks

Values = NDArray[np.float64]

# Few random walks reach it; the weakest cycle of the catalogue has .26, and copying it beats copying the last value.
MIN_CORRELATION = 0.25
# Of a maximum over its surroundings: slow series with little noise have small ones at any lag.
MIN_PROMINENCE = 0.015
# A cycle is preferred to its multiples, which correlate as well.
NEARLY = 0.95
# A lag this near to a day or a week is one: noise moves the maximum.
CALENDAR_SHARE = 0.02
CALENDAR_S = (86_400.0, 604_800.0)
MIN_CYCLES = 3
# Variance of a channel whose largest value is 1; less is rounding.
CONSTANT = 1e-12


def estimate_season(values: Values, step_s: float) -> int:
    """Return the values per cycle of a training part (T, C); 1 where it shows none.

    That is the shortest of the local maxima of the channels' mean autocorrelation which are nearly the highest.
    """
    correlation = autocorrelation(values, len(values) // MIN_CYCLES)
    lags, _ = find_peaks(correlation, prominence=MIN_PROMINENCE)
    if not len(lags) or correlation[lags].max() < MIN_CORRELATION:
        return 1
    lag = int(lags[correlation[lags] >= NEARLY * correlation[lags].max()][0])
    for period in (round(seconds / step_s) for seconds in CALENDAR_S):
        if abs(lag - period) <= CALENDAR_SHARE * period:
            return period
    return lag


def autocorrelation(values: Values, max_lag: int) -> Values:
    """Return the mean over channels of the autocorrelation at lags 0 to `max_lag`, linear trends removed."""
    num_rows = len(values)
    largest = np.abs(values).max(axis=0)
    smooth = detrend(values / np.where(largest > 0, largest, 1.0), axis=0)
    power = np.abs(np.fft.rfft(smooth, 2 * num_rows, axis=0)) ** 2
    covariance = np.fft.irfft(power, axis=0)[: max_lag + 1]
    variance = covariance[0]
    moving = variance > CONSTANT * num_rows
    if not moving.any():
        return np.zeros(max_lag + 1)
    return np.asarray((covariance[:, moving] / variance[moving]).mean(axis=1))
