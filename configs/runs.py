"""Where runs write."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.runtime.runs import RunConfig

run = store(group="run")

run(named(RunConfig), name="default")
