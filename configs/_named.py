"""How a config dataclass gets a name."""

from __future__ import annotations

from typing import Any

from hydra_zen import builds


def named(config: type, **changes: Any) -> Any:
    """Return a named variant of a config dataclass, typed field by field, that differs only in `changes`."""
    return builds(config, populate_full_signature=True, hydra_convert="object", **changes)
