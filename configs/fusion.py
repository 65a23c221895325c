"""Named ways to fuse the detectors."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.fusion.environment import FusionConfig

fusion = store(group="fusion")

fusion(named(FusionConfig), name="default")
