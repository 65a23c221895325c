"""The forecaster in use: told values as they come, it says what comes next and how sure it is.

Plain torch and numpy, so that agents and the service run it without Lightning. A segment LSTM normalises each window by
its own mean, so nothing can be carried over from step to step: the state is the last values, and one call costs the
same however long the series is.
Shapes: k new values, C channels, L look-back, H trained horizon, h horizon asked for, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from predact.forecasting.deployment import Form, FormName, FormUnavailable, TorchForm, build_form
from predact.forecasting.forecast import Forecast, SeriesFacts, Values
from predact.forecasting.intervals import Band, IntervalConfig, RollingCQR, conformal_scores, is_collapsed, outer_band
from predact.forecasting.manifest import exported_form
from predact.forecasting.network import ForecastNetwork
from predact.runtime.checkpoints import load_model, load_weights, save_model
from predact.runtime.devices import Accelerator, choose_device
from predact.runtime.errors import PredactError

__all__ = ["Forecast", "ForecastNetwork", "Forecaster", "SeriesFacts"]

REPLAY_BATCH = 32
SHOWN_COLUMNS = 3


class Forecaster:
    """A trained network, the scale of its series, its conformal state, and the last values it was told."""

    def __init__(
        self, network: ForecastNetwork, facts: SeriesFacts, intervals: RollingCQR, *, form: Form | None = None
    ) -> None:
        """Start before the first value.

        Args:
            intervals: for as many channels and steps as the network forecasts; scored on validation windows, or empty.
            form: what runs the network; float torch by default.
        """
        self.network = network.eval()
        self.facts = facts
        self.intervals = intervals
        self.form: Form = form or TorchForm("torch_float", network)
        self.look_back, self.horizon, self.columns = network.look_back, network.horizon, facts.columns
        self.step_s = facts.step_s
        self.seen = 0
        """How many values it was told."""
        self.next_s: float | None = None
        """Time of the next value, where known."""
        self._mean = np.array(facts.mean, dtype=np.float64)
        self._std = np.array(facts.std, dtype=np.float64)
        positions = torch.arange(len(network.levels))
        ends = outer_band(positions[:0], positions if network.levels else None, network.levels, intervals.config)
        self._ends = (int(ends.lower), int(ends.upper)) if network.levels else None
        # The values behind two horizons decide the scores of what is pending when many values come at once.
        self._kept = max(self.look_back, 2 * self.horizon)
        channels = len(facts.columns)
        # Written from left to right; once full, what is kept moves to the front.
        self._values = np.empty((channels, 2 * self._kept + self.horizon), dtype=np.float32)
        self._end = 0
        # Bands whose target is not known yet, the one made at origin t in row t % H.
        self._pending = np.empty((self.horizon, 2, channels, self.horizon), dtype=np.float32)
        self._origins = np.full(self.horizon, -1, dtype=np.int64)

    def update(self, values: ArrayLike, *, time_s: float | None = None) -> None:
        """Take in one value of every channel, (C,), or several in order of time, (k, C), in the series' units.

        Args:
            time_s: time of the last of them, seconds since 1970 in UTC; counted on from there if it is not given again.

        Raises:
            PredactError: A value is not finite, or there are not as many as channels; nothing is taken in then.
        """
        scaled = self._scaled(values)
        count = scaled.shape[1]
        if count == 0:
            return
        # Of what comes later than that, no forecast is pending.
        first = min(count, self.horizon)
        self._append(scaled[:, :first])
        self._score_pending(first)
        rest = scaled[:, first:]
        self.seen += max(rest.shape[1] - self._kept, 0)
        if rest.shape[1]:
            self._append(rest[:, -self._kept :])
        self._count_time(count, time_s)

    def replay(self, values: ArrayLike, *, time_s: float | None = None) -> None:
        """Take in values one by one as `update` does, and forecast before each of them as soon as that can be done.

        All is then as it would be had the forecaster run all along, at the cost of a forward pass a value. Values that
        the model was trained on give scores that are too good.
        """
        scaled = self._scaled(values)
        count = scaled.shape[1]
        # Before these there are too few values to forecast from.
        first = min(max(self.look_back - self.seen, 0), count)
        self._append(scaled[:, :first])
        for start in range(first, count, REPLAY_BATCH):
            self._replay_batch(scaled[:, start : start + REPLAY_BATCH])
        self._count_time(count, time_s)

    def forecast(self, horizon: int | None = None) -> Forecast:
        """Forecast the next values; the same state gives the same forecast.

        What it says is remembered until it can be compared with what came, which corrects later bands.

        Args:
            horizon: how many steps; None for as many as it was trained for.

        Raises:
            PredactError: It was not trained for that many, or has seen too few values.
        """
        steps = self.horizon if horizon is None else horizon
        if not 1 <= steps <= self.horizon:
            raise PredactError(
                f"horizon={steps} is none of the 1 to {self.horizon} steps that this model was trained for; "
                f"ask for at most {self.horizon}" + (f", or train with horizon={steps}" if steps > 0 else "")
            )
        if self.seen < self.look_back:
            raise PredactError(
                f"a forecast needs the last {self.look_back:,} values, and there are {self.seen:,} so far; give more"
            )
        output = self.form.run(np.ascontiguousarray(self._latest(self.look_back))[None])
        point, quantiles = output.point[0], None if output.quantiles is None else output.quantiles[0]
        raw = self._band(point, quantiles)
        self._remember(raw, self.seen)
        band = self.intervals.band(raw, self.seen)
        collapsed = is_collapsed(raw, self.intervals.correction(self.seen))[:, :steps]
        # What other windows were corrected by may leave the point out, and nobody can act on such a band; the backtest
        # measures bands as they are, so that its coverage and width are those of the method.
        lower, upper = np.minimum(band.lower.numpy(), point), np.maximum(band.upper.numpy(), point)
        return Forecast(
            point=self._unscaled(point, steps),
            quantiles=None if quantiles is None else self._unscaled(quantiles, steps),
            levels=self.network.levels,
            lower=self._unscaled(lower, steps),
            upper=self._unscaled(upper, steps),
            coverage=self.intervals.config.coverage,
            calibrated=self.intervals.is_calibrated and not bool(collapsed.any()),
            t0=self.seen,
            time_s=self.next_s,
            step_s=self.step_s,
            columns=self.columns,
        )

    def history(self) -> Values:
        """Return the last values that it holds, (any, C) in the series' units, as exact as float32 is."""
        latest = self._latest(min(self.seen, self._kept))
        return self._unscaled(latest, latest.shape[1])

    def state(self) -> dict[str, Tensor]:
        """Return what a restart needs to go on as if nothing had happened, as plain tensors."""
        pending = np.flatnonzero(self._origins >= 0)
        state = {
            "seen": torch.tensor(self.seen),
            "next_s": torch.tensor(math.nan if self.next_s is None else self.next_s, dtype=torch.float64),
            "values": torch.from_numpy(self._latest(min(self.seen, self._kept)).copy()),
            "origins": torch.from_numpy(self._origins[pending]),
            "pending": torch.from_numpy(self._pending[pending]),
        }
        return state | {f"intervals.{name}": value for name, value in self.intervals.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Raises:
            PredactError: It is the state of another model; nothing changes then.
        """
        channels, shape = len(self.columns), (2, len(self.columns), self.horizon)
        try:
            values, pending, origins = (state[name].numpy() for name in ("values", "pending", "origins"))
            seen, next_s = int(state["seen"]), float(state["next_s"])
            if values.shape != (channels, min(seen, self._kept)) or pending.shape[1:] != shape:
                raise ValueError(f"its values are {values.shape}, its bands {pending.shape[1:]}")
            self.intervals.load_state(_below("intervals.", state))
        except (KeyError, ValueError) as error:
            raise PredactError(f"the state is not one of this model ({error}); start without it") from error
        self.seen, self.next_s, self._end = seen, None if math.isnan(next_s) else next_s, values.shape[1]
        self._values[:, : self._end] = values
        self._origins[:] = -1
        self._origins[origins % self.horizon] = origins
        self._pending[origins % self.horizon] = pending

    def save(self, path: Path, *, meta: Mapping[str, Any]) -> str:
        """Write weights, scale and interval scores, not the values it was told; return the hash of the content.

        The scores take 4 · `window` · C · H bytes: 29 MB for 7 channels, 720 steps and the default window.
        """
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state["intervals.scores"] = self.intervals.state()["scores"]
        config = {
            **self.network.plain_config(),
            "series": asdict(self.facts),
            "intervals": asdict(self.intervals.config),
        }
        return save_model(path, config=config, state_dict=state, meta=meta)

    @classmethod
    def load(
        cls, path: Path, *, form: FormName | Literal["auto"] = "auto", accelerator: Accelerator = "cpu"
    ) -> Forecaster:
        """Read a model file.

        Args:
            form: what runs it on a CPU; `auto` is the form that `predact export` chose, else float torch.
            accelerator: on a GPU it is always float torch.

        Raises:
            PredactError: The file is missing, damaged or no forecaster, or the form cannot be had here.
        """
        model = load_model(path)
        network = ForecastNetwork.from_config(model.config, source=str(path))
        load_weights(network, _below("network.", model.state_dict), source=str(path))
        network.eval()
        try:
            facts = TypeAdapter(SeriesFacts).validate_python(model.config["series"])
            config = TypeAdapter(IntervalConfig).validate_python(model.config["intervals"])
            intervals = RollingCQR(config, channels=len(facts.columns), horizon=network.horizon)
            intervals.update(model.state_dict["intervals.scores"])
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise PredactError(f"{path} is no forecaster ({reason}); train one: see python train.py --list") from error
        device = choose_device(accelerator)
        if device.type != "cpu":
            if form not in ("auto", "torch_float"):
                raise PredactError(f"form {form} runs on the CPU only; take accelerator cpu, or form torch_float")
            return cls(network, facts, intervals, form=TorchForm(f"torch_{device.type}", network.to(device)))
        if form == "auto":
            return cls(network, facts, intervals, form=exported_form(path, network, channels=len(facts.columns)))
        try:
            built = build_form(form, network, channels=len(facts.columns))
        except FormUnavailable as error:
            raise PredactError(f"form {form} cannot be had here: {error}; take form torch_float") from error
        return cls(network, facts, intervals, form=built)

    def _scaled(self, values: ArrayLike) -> NDArray[np.float32]:
        """Return values as the network sees them, (C, k); refuse what cannot be one."""
        channels = len(self.columns)
        try:
            given = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise PredactError(f"values must be numbers, one a channel ({error})") from error
        if given.ndim < 2:
            given = given.reshape(-1, 1) if channels == 1 else given.reshape(1, -1)
        if given.ndim != 2 or given.shape[1] != channels:
            raise PredactError(
                f"this model was trained on {_counted(channels)} ({_listed(self.columns)}), got {given.shape[-1]}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = ((given - self._mean) / self._std).astype(np.float32)
        if not np.isfinite(scaled).all():
            row, column = np.argwhere(~np.isfinite(scaled))[0].tolist()
            what = "out of range" if math.isfinite(given[row, column]) else "not a number"
            raise PredactError(
                f"value {row + 1} of {self.columns[column]} is {given[row, column]:g}, {what}; "
                "repair it before the model sees it"
            )
        return scaled.T

    def _unscaled(self, scaled: NDArray[np.float32], steps: int) -> Values:
        """Return (C, H) or (C, H, Q) as (h, C) or (h, C, Q) in the series' units."""
        wanted = scaled[:, :steps].swapaxes(0, 1)
        shape = (1, -1) + (1,) * (scaled.ndim - 2)
        unscaled: Values = wanted * self._std.reshape(shape) + self._mean.reshape(shape)
        return unscaled

    def _count_time(self, count: int, time_s: float | None) -> None:
        if count and time_s is not None:
            self.next_s = time_s + self.step_s
        elif self.next_s is not None:
            self.next_s += count * self.step_s

    def _replay_batch(self, scaled: NDArray[np.float32]) -> None:
        known = np.concatenate([self._latest(self.look_back), scaled[:, :-1]], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(known, self.look_back, axis=1).swapaxes(0, 1)
        output = self.form.run(windows.copy())
        for position in range(scaled.shape[1]):
            quantiles = None if output.quantiles is None else output.quantiles[position]
            # Renewed when it would have been, since what a correction covers decides the next one.
            self.intervals.correction(self.seen)
            self._remember(self._band(output.point[position], quantiles), self.seen)
            self._append(scaled[:, position : position + 1])
            self._score_pending(1)

    def _append(self, scaled: NDArray[np.float32]) -> None:
        count = scaled.shape[1]
        if self._end + count > self._values.shape[1]:
            kept = min(self._end, self._kept)
            self._values[:, :kept] = self._values[:, self._end - kept : self._end].copy()
            self._end = kept
        self._values[:, self._end : self._end + count] = scaled
        self._end += count
        self.seen += count

    def _latest(self, count: int) -> NDArray[np.float32]:
        return self._values[:, self._end - count : self._end]

    def _band(self, point: NDArray[np.float32], quantiles: NDArray[np.float32] | None) -> Band:
        if quantiles is None or self._ends is None:
            return Band(torch.from_numpy(point), torch.from_numpy(point))
        lower, upper = (torch.from_numpy(quantiles[..., at]) for at in self._ends)
        return Band(lower, upper)

    def _remember(self, band: Band, origin: int) -> None:
        row = origin % self.horizon
        self._pending[row, 0], self._pending[row, 1] = band.lower.numpy(), band.upper.numpy()
        self._origins[row] = origin

    def _score_pending(self, count: int) -> None:
        """Compare the forecasts whose target the last `count` values made whole with it, the oldest first."""
        newest = self.seen - self.horizon
        for origin in range(max(newest - count + 1, 0), newest + 1):
            row = origin % self.horizon
            if self._origins[row] != origin:
                continue
            start = self._end - (self.seen - origin)
            target = torch.from_numpy(self._values[:, start : start + self.horizon])
            lower, upper = torch.from_numpy(self._pending[row])
            self.intervals.update(conformal_scores(Band(lower, upper), target))
            self._origins[row] = -1


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _counted(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"


def _listed(columns: Sequence[str]) -> str:
    return ", ".join([*columns[:SHOWN_COLUMNS], *(["..."] if len(columns) > SHOWN_COLUMNS else [])])
