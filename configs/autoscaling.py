"""Named loads, clusters, and ways to train on them."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.autoscaling.catalog import PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig
from predact.autoscaling.lstm_forecast import LoadForecastConfig
from predact.autoscaling.training_config import TrainingConfig

load = store(group="load")
legacy = store(group="legacy")
cluster = store(group="cluster")
forecast = store(group="forecast")
training = store(group="training")

for name in PATTERN_NAMES:
    load(named(LoadConfig, pattern=name), name=name)
for name in TRACES:
    load(named(LoadConfig, pattern=f"{TRACE_PREFIX}{name}"), name=name)
legacy(named(LegacyConfig), name="default")
# A small network learns nothing from numbers in the thousands.
legacy(named(LegacyConfig, scaled=True), name="scaled")
cluster(named(AutoscaleConfig), name="default")
forecast(named(LoadForecastConfig), name="lstm")
training(named(TrainingConfig), name="default")
# A table learns more slowly, and is faster at it.
training(named(TrainingConfig, timesteps=3_000_000), name="tabular")
# Ten thousand episodes of 200 steps.
training(named(TrainingConfig, num_envs=200, timesteps=2_000_000), name="legacy")
training(named(TrainingConfig, num_envs=16, timesteps=500_000), name="legacy_deep")
