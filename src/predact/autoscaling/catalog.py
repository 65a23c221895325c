"""What loads there are by name; nothing here imports a numerical library."""

from __future__ import annotations

from typing import NamedTuple

from predact.forecasting.catalog import SERIES

GENERATED = ("sine", "sinusoidal", "steady", "spike", "poisson", "random")
MIXED = "mixed"
PATTERN_NAMES = (*GENERATED, MIXED)
TRACE_PREFIX = "trace:"


class KnownTrace(NamedTuple):
    """A series of the forecaster's catalogue that is a load: its column, and how many values are joined to one."""

    series: str
    column: str
    joined: int = 1


TRACES: dict[str, KnownTrace] = {
    "nyc_taxi": KnownTrace("nyc_taxi", "value"),
    "elb": KnownTrace("elb", "value"),
    **{name: KnownTrace(name, "requests") for name in SERIES if name.startswith("autothrottle_")},
    # Two to five requests a second: single seconds would be noise upon which arrivals then add theirs.
    "azure_llm_code": KnownTrace("azure_llm", "code", joined=10),
    "azure_llm_conv": KnownTrace("azure_llm", "conv", joined=10),
}
