"""What policies are shown in tests."""

from typing import Any

import numpy as np

from predact.autoscaling.cluster import ClusterView

_COUNTS = {"ready", "booting", "draining", "pending"}
_FLAGS = {"may_add", "may_remove"}


def view(**values: Any) -> ClusterView:
    """Return a view of as many clusters as there are values; what is not given is a quiet cluster's."""
    given = {"ready": 5, "utilisation": 0.5, "arrivals_per_s": 50.0, "may_add": True, "may_remove": True} | values
    step, capacity_per_s = given.pop("step", 0), given.pop("capacity_per_s", 20.0)
    num_envs = max(np.size(value) for value in given.values())
    fields: dict[str, Any] = {}
    for name in ClusterView._fields:
        kind = np.int64 if name in _COUNTS else np.bool_ if name in _FLAGS else np.float32
        fields[name] = np.broadcast_to(np.asarray(given.get(name, 0), kind), num_envs).copy()
    return ClusterView(**(fields | {"step": step, "capacity_per_s": capacity_per_s}))


def row(seen: ClusterView, index: int) -> ClusterView:
    """Return what is seen of one cluster."""
    return ClusterView(*(part[index : index + 1] if isinstance(part, np.ndarray) else part for part in seen))
