"""The root of every config. A plain dict: a typed one would refuse any preset that is not its subclass."""

from __future__ import annotations

from hydra_zen import store

ROOT = "train"

store({"defaults": ["_self_", {"preset": "???"}], "seed": 0, "resume": False}, name=ROOT)
