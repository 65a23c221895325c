"""What a trained forecaster says of its intervals, and how long its backtest takes; writes JSON.

    python benchmarks/_forecasting_checks.py MODEL OUTPUT [--time]

`forecasting.py` starts it in the folder of a finished run. Shapes: N windows, C channels, H horizon.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from predact.forecasting.backtest import backtest
from predact.forecasting.evaluation import DEPLOYED_BAND, NetworkPredictor, evaluate, window_errors
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import IntervalConfig, outer_band
from predact.forecasting.metrics import seasonal_scale
from predact.forecasting.network import MEDIAN
from predact.forecasting.series import SeriesConfig, SeriesData, prepare_series
from predact.forecasting.windows import inputs, targets
from predact.runtime.artifacts import write_json
from predact.runtime.checkpoints import load_model

PASSES = 5
LOOPED = 200
"""Windows that the plain loop is timed on."""
CORES = 2
CHUNK = 256


class Checks:
    """A forecaster on the series that it was trained on."""

    def __init__(self, model: Path) -> None:
        self.data: SeriesData = prepare_series(
            TypeAdapter(SeriesConfig).validate_python(load_model(model).meta["data"])
        )
        forecaster = Forecaster.load(model, form="torch_float")
        self.predictor = NetworkPredictor(name="headline", network=forecaster.network)
        self.config: IntervalConfig = forecaster.intervals.config
        self.horizon = forecaster.horizon
        sizes = {"look_back": forecaster.look_back, "horizon": self.horizon}
        self.val, self.test = (self.data.origins("val", **sizes), self.data.origins("test", **sizes))

    def backtest(self, calibration: range) -> None:
        """Score all test windows, as a run does."""
        scale = seasonal_scale(self.data.scaled[:, : self.data.bounds[0]], self.data.series.season)
        backtest(
            self.data.scaled,
            [self.predictor],
            self.test,
            horizon=self.horizon,
            calibration=calibration,
            mase_scale=scale,
            intervals=self.config,
        )

    def measure(self) -> dict[str, Any]:
        """Return what is known of the series and the network, and the share of values in the band by window."""
        found = evaluate(self.predictor, [], self.data, self.config, device=torch.device("cpu"))
        return {
            "summary": self.data.summary,
            "notes": list(self.data.notes),
            "look_back": self.predictor.look_back,
            "horizon": self.horizon,
            "season": self.data.series.season,
            "windows": len(self.test),
            "parameters": sum(weight.numel() for weight in self.predictor.network.parameters()),
            "inside": np.round(np.asarray(found.coverage.inside[DEPLOYED_BAND], dtype=np.float64), 5).tolist(),
            "median_shift": self._median_shift(),
        }

    def time(self) -> dict[str, Any]:
        """Return the seconds of whole backtests on two cores, and of a plain loop over some of the windows."""
        sample = range(self.test.start, self.test.stop, max(len(self.test) // LOOPED, 1))
        torch.set_num_threads(CORES)
        seconds = {
            "with_calibration": self._seconds(lambda: self.backtest(self.val)),
            "test_windows": self._seconds(lambda: self.backtest(range(0))),
        }
        # On one thread each, as a training run leaves it; single windows are fastest so.
        torch.set_num_threads(1)
        seconds["a_thread_a_chunk"] = self._seconds(lambda: self.backtest(self.val))
        start_s = time.perf_counter()
        errors = torch.stack([self._one(origin) for origin in sample])
        looped_s = time.perf_counter() - start_s
        agreed = window_errors(self.predictor, self.data.scaled, sample).mean(1)
        return {
            "windows": len(self.test),
            "seconds": seconds,
            "looped_windows": len(sample),
            "looped_s": looped_s,
            "largest_difference": float((errors[:, 0] - agreed).abs().max()),
        }

    def _seconds(self, work: Callable[[], object]) -> dict[str, float]:
        work()
        taken = []
        for _ in range(PASSES):
            start_s = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start_s)
        return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}

    def _one(self, origin: int) -> Tensor:
        """Forecast one window and score it: what a backtest by a loop does over and over."""
        where, levels = range(origin, origin + 1), self.predictor.levels
        with torch.inference_mode():
            output = self.predictor.predict(inputs(self.data.scaled, where, self.predictor.look_back))
            target = targets(self.data.scaled, where, self.horizon)
            error = output.point - target
            scores = [error.square().mean(), error.abs().mean()]
            if output.quantiles is not None:
                beyond, at = target.unsqueeze(-1) - output.quantiles, torch.tensor(levels)
                scores.append(torch.maximum(at * beyond, (at - 1) * beyond).mean())
                band = outer_band(*output, levels, self.config)
                scores.append(((band.lower <= target) & (target <= band.upper)).float().mean())
            return torch.stack(scores)

    def _median_shift(self) -> float | None:
        """Return how far the median of the quantiles lies from the point at most; None without quantiles."""
        levels = self.predictor.levels
        if MEDIAN not in levels:
            return None
        with torch.inference_mode():
            output = self.predictor.predict(inputs(self.data.scaled, self.test[:CHUNK], self.predictor.look_back))
        assert output.quantiles is not None
        return float((output.quantiles[..., levels.index(MEDIAN)] - output.point).abs().max())


def main() -> None:
    model, output, *rest = sys.argv[1:]
    checks = Checks(Path(model))
    content = checks.measure()
    if rest == ["--time"]:
        content["backtest"] = checks.time()
    write_json(Path(output), content)


if __name__ == "__main__":
    main()
