"""A trained GAT or VGAE with all it needs to score windows: features it reads, scaling, threshold of normality.

Plain torch, so that the service and `predact detect` run without Lightning.
Shapes: G graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from predact.canbus.features import (
    ABSOLUTE_NODE_FEATURES,
    ABSOLUTE_WINDOW_FEATURES,
    CALIBRATED_NODE_FEATURES,
    CALIBRATED_WINDOW_FEATURES,
    EDGE_FEATURES,
)
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.detection.calibration import Prior, calibrate
from predact.detection.gat import GAT, GATConfig
from predact.detection.vgae import VGAE, VGAEConfig, VGAEErrors, total_error
from predact.runtime.checkpoints import load_weights
from predact.runtime.errors import PredactError

SCORING_BATCH = 512
NORMAL_QUANTILE = 0.99

DetectorKind = Literal["gat", "vgae"]


class DetectorOutput(NamedTuple):
    """What a detector says about G windows.

    Args:
        score: (G,) float32 in [0, 1].
        features: (G, k) float32, further state features; the VGAE's three errors as logarithms, robust z on benign
            validation windows; none for the GAT.
    """

    score: Tensor
    features: Tensor


@dataclass(frozen=True, eq=False)
class ErrorScale:
    """What the VGAE's log errors are like on benign validation windows: total, node, edge, KL.

    Args:
        prior: centre and deviation of the four.
        threshold: 99th percentile of the robust z of the total.
    """

    prior: Prior
    threshold: float

    def score(self, z: Tensor) -> Tensor:
        """Return scores in (0, 1) of (n,) robust z: .5 at the threshold.

        The logistic function alone is 1 in float32 from z = 17 on, where attacks of all kinds begin; the inverse
        hyperbolic sine keeps their order, and leaves z near the threshold as it is.
        """
        return torch.sigmoid(torch.asinh(z - self.threshold))


class Detector:
    """Scores windows in [0, 1] with a trained network."""

    def __init__(
        self,
        kind: DetectorKind,
        config: GATConfig | VGAEConfig,
        *,
        reference_s: float,
        id_vocabulary: Tensor | None = None,
    ) -> None:
        """Build an untrained detector; `reference_s` is how much of a capture's start tells what is usual there."""
        self.kind = kind
        self.config = config
        self.reference_s = reference_s
        self.id_vocabulary = torch.empty(0, dtype=torch.long) if id_vocabulary is None else id_vocabulary
        self.node_features = CALIBRATED_NODE_FEATURES if config.calibrated else ABSOLUTE_NODE_FEATURES
        self.window_features = CALIBRATED_WINDOW_FEATURES if config.calibrated else ABSOLUTE_WINDOW_FEATURES
        self.network = self._build()
        self.error_scale: ErrorScale | None = None

    def _build(self) -> nn.Module:
        sizes = {"num_node_features": len(self.node_features), "num_edge_features": len(EDGE_FEATURES)}
        if isinstance(self.config, GATConfig):
            windows = len(self.window_features)
            return GAT(self.config, **sizes, num_window_features=windows, id_vocabulary=self.id_vocabulary)
        return VGAE(self.config, **sizes)

    def columns_of(self, graphs: PackedGraphs) -> PackedGraphs:
        """Keep the features that this detector reads."""
        return graphs.select(node_features=self.node_features, window_features=self.window_features)

    def fit_scaling(self, graphs: PackedGraphs) -> None:
        """Standardise absolute features by the training graphs (columns already selected).

        Calibrated features stay as they are: ratios and counts with a meaning of their own, nearly constant on benign
        traffic, where dividing by that spread would let one early frame drown everything else.
        """
        if self.config.calibrated:
            return
        self.network.node_scaling.fit(graphs.x)  # type: ignore[operator, union-attr]
        if isinstance(self.network, GAT):
            self.network.window_scaling.fit(graphs.u)

    def fit_error_scale(self, selected: PackedGraphs, benign: Tensor) -> None:
        """Learn what a VGAE's errors are like on the benign validation windows at `benign`, (n,) int64.

        Args:
            selected: all windows of the training captures, so that their starts are there; columns already selected.
            benign: positions within `selected`.
        """
        errors = self.log_errors(selected)
        prior = Prior.fit(errors[benign])
        z = self._relative(errors, selected, prior)[benign, 0]
        self.error_scale = ErrorScale(prior, float(torch.quantile(z, NORMAL_QUANTILE)))

    def _relative(self, errors: Tensor, graphs: PackedGraphs, prior: Prior) -> Tensor:
        """Return the robust z of log errors, (G, 4): of the capture's own start, or of the fleet if not calibrated."""
        if not self.config.calibrated:
            return prior.z(errors)
        return calibrate(errors, graphs, prior, reference_s=self.reference_s)

    @torch.inference_mode()
    def score(self, graphs: PackedGraphs) -> DetectorOutput:
        """Score all graphs, in order; the same input gives the same output.

        A calibrated VGAE needs whole captures: it looks at the windows of their first seconds.
        """
        selected = self.columns_of(graphs)
        self.network.eval()
        if self.kind == "gat":
            score = torch.cat([torch.sigmoid(self.network(batch)) for batch in batches(selected)])
            return DetectorOutput(score, torch.empty(len(graphs), 0))
        if self.error_scale is None:
            raise PredactError("this VGAE has no error scale: train it to the end before scoring")
        z = self._relative(self.log_errors(selected), graphs, self.error_scale.prior)
        return DetectorOutput(self.error_scale.score(z[:, 0]), z[:, 1:])

    @torch.inference_mode()
    def log_errors(self, selected: PackedGraphs) -> Tensor:
        """Return the VGAE's log errors, (G, 4): total, node, edge, KL; columns already selected."""
        assert isinstance(self.config, VGAEConfig)
        self.network.eval()
        rows = []
        for batch in batches(selected):
            errors: VGAEErrors = self.network(batch)
            rows.append(torch.stack([total_error(errors, self.config), *errors], dim=1))
        return torch.cat(rows).clamp(min=1e-8).log()

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, scaling, ids and error scale as tensors."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state["id_vocabulary"] = self.id_vocabulary
        if self.error_scale is not None:
            scale = self.error_scale
            parts = (scale.prior.centre, scale.prior.deviation, torch.tensor([scale.threshold]))
            state["error_scale"] = torch.cat(parts)
        return state

    def plain_config(self) -> dict[str, Any]:
        """Return kind and config as plain data."""
        return {"kind": self.kind, "reference_s": self.reference_s, **asdict(self.config)}

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Tensor], *, source: str) -> Detector:
        """Rebuild a detector from `plain_config` and `state_dict`.

        Raises:
            PredactError: config or weights are of another architecture.
        """
        fields = dict(config)
        kind = fields.pop("kind", None)
        if kind not in ("gat", "vgae"):
            raise PredactError(
                f"{source} holds no detector (kind {kind!r}); train one: python train.py --preset gat_demo"
            )
        try:
            reference_s = float(fields.pop("reference_s"))
            typed = GATConfig(**fields) if kind == "gat" else VGAEConfig(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise PredactError(f"{source} was written by another version ({error}); train it again") from error
        detector = cls(kind, typed, reference_s=reference_s, id_vocabulary=state.get("id_vocabulary"))
        weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        load_weights(detector.network, weights, source=source)
        if "error_scale" in state:
            packed = state["error_scale"]
            detector.error_scale = ErrorScale(Prior(packed[:4], packed[4:8]), float(packed[8]))
        return detector


def batches(graphs: PackedGraphs, size: int = SCORING_BATCH) -> Iterator[GraphBatch]:
    """Yield all graphs in order, `size` at a time."""
    for low in range(0, len(graphs), size):
        yield graphs.batch(torch.arange(low, min(low + size, len(graphs)), device=graphs.node_ptr.device))
