"""Detectors: the same input, the same score; saved and read back; anything else refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.packed import PackedGraphs
from predact.detection.calibration import Prior, calibrate
from predact.detection.detectors import Detector, ErrorScale, batches
from predact.detection.gat import GATConfig
from predact.detection.vgae import VGAEConfig, total_error
from predact.runtime.errors import PredactError
from tests.detection.tiny import GAT_CONFIG, REFERENCE_S, VGAE_CONFIG, capture_graphs, renamed

KINDS = ("gat", "gat_with_ids", "gat_uncalibrated", "vgae", "vgae_uncalibrated")


@pytest.fixture(scope="module")
def graphs() -> PackedGraphs:
    return capture_graphs("attack-free-B", "fuzzing-B")


def benign(graphs: PackedGraphs) -> torch.Tensor:
    return torch.nonzero(graphs.y == 0).squeeze(1)


def detector_of(kind: str, graphs: PackedGraphs, *, seed: int = 0) -> Detector:
    """A detector with random weights, and all else learned from `graphs`."""
    torch.manual_seed(seed)
    if kind.startswith("gat"):
        config = replace(GAT_CONFIG, calibrated="un" not in kind, id_embedding_dim=3 if "ids" in kind else 0)
        ids = graphs.node_id.unique().long() if "ids" in kind else None
        detector = Detector("gat", config, reference_s=REFERENCE_S, id_vocabulary=ids)
    else:
        detector = Detector("vgae", replace(VGAE_CONFIG, calibrated="un" not in kind), reference_s=REFERENCE_S)
    detector.fit_scaling(detector.columns_of(graphs))
    if detector.kind == "vgae":
        detector.fit_error_scale(detector.columns_of(graphs), benign(graphs))
    return detector


@pytest.fixture(scope="module", params=KINDS)
def detector(request: pytest.FixtureRequest, graphs: PackedGraphs) -> Detector:
    return detector_of(request.param, graphs)


# The VGAE's score


def scale_at(threshold: float) -> ErrorScale:
    return ErrorScale(Prior(torch.zeros(4), torch.ones(4)), threshold)


@given(st.floats(-10, 30))
def test_the_score_is_one_half_at_the_threshold(threshold: float) -> None:
    exact = torch.tensor([threshold], dtype=torch.float64)
    assert scale_at(threshold).score(exact).item() == 0.5


def test_the_score_rises_strictly_up_to_z_of_100_in_float32() -> None:
    z = torch.arange(-100, 100.001, 0.1, dtype=torch.float32)
    score = scale_at(2.5).score(z)
    assert score.dtype == torch.float32
    assert (score.diff() > 0).all() and score[0] > 0 and score[-1] < 1
    # The logistic function alone would not.
    assert (torch.sigmoid(z - 2.5).diff() == 0).any()


def test_near_the_threshold_it_is_the_logistic_function() -> None:
    z = torch.linspace(2.3, 2.7, 9, dtype=torch.float64)
    assert torch.allclose(scale_at(2.5).score(z), torch.sigmoid(z - 2.5), atol=1e-3)


def test_one_in_a_hundred_of_the_benign_validation_windows_scores_above_one_half(graphs: PackedGraphs) -> None:
    score = detector_of("vgae", graphs).score(graphs).score[benign(graphs)]
    assert (score > 0.5).sum() in (len(score) // 100, len(score) // 100 + 1)


def test_the_error_scale_is_that_of_the_benign_windows_given(graphs: PackedGraphs) -> None:
    detector = detector_of("vgae", graphs)
    selected, rows = detector.columns_of(graphs), benign(graphs)[::2]
    detector.fit_error_scale(selected, rows)
    assert detector.error_scale is not None
    errors = detector.log_errors(selected)
    prior = Prior.fit(errors[rows])
    z = calibrate(errors, graphs, prior, reference_s=REFERENCE_S)
    assert torch.equal(detector.error_scale.prior.centre, prior.centre)
    assert detector.error_scale.threshold == pytest.approx(torch.quantile(z[rows, 0], 0.99).item())
    assert torch.equal(detector.score(graphs).features, z[:, 1:])


@torch.no_grad()
def test_log_errors_are_those_of_the_network_window_by_window(graphs: PackedGraphs) -> None:
    detector = detector_of("vgae", graphs)
    selected = detector.columns_of(graphs)
    errors = detector.log_errors(selected)
    assert isinstance(detector.config, VGAEConfig)
    for index in (0, 50, len(graphs) - 1):
        parts = detector.network(selected.batch(torch.tensor([index])))
        expected = torch.stack([total_error(parts, detector.config), *parts], 1).log()
        assert torch.allclose(errors[index], expected[0], atol=1e-4)


def test_a_vgae_that_was_not_trained_to_the_end_does_not_score(graphs: PackedGraphs) -> None:
    with pytest.raises(PredactError, match="no error scale: train it to the end"):
        Detector("vgae", VGAE_CONFIG, reference_s=REFERENCE_S).score(graphs)


# Scores of all kinds


def test_the_same_windows_have_the_same_scores_twice_and_the_global_generator_does_not_matter(
    detector: Detector, graphs: PackedGraphs
) -> None:
    torch.manual_seed(1)
    first = detector.score(graphs)
    torch.manual_seed(2)
    detector.network.train()
    second = detector.score(graphs)
    assert torch.equal(first.score, second.score) and torch.equal(first.features, second.features)


def test_scores_lie_between_0_and_1_and_differ(detector: Detector, graphs: PackedGraphs) -> None:
    score, features = detector.score(graphs)
    assert score.shape == (len(graphs),) and score.dtype == torch.float32
    assert (score >= 0).all() and (score <= 1).all() and score.std() > 0
    assert features.shape == (len(graphs), 3 if detector.kind == "vgae" else 0)


def test_a_capture_is_scored_alone_as_among_others(detector: Detector, graphs: PackedGraphs) -> None:
    together = detector.score(graphs)
    alone = detector.score(capture_graphs("fuzzing-B"))
    own = graphs.capture == 1
    assert torch.allclose(alone.score, together.score[own], atol=1e-4)
    assert torch.allclose(alone.features, together.features[own], atol=1e-2)


def test_labels_do_not_reach_the_scores(detector: Detector, graphs: PackedGraphs) -> None:
    flipped = detector.score(replace(graphs, y=1 - graphs.y))
    assert torch.equal(flipped.score, detector.score(graphs).score)


def test_only_an_embedding_sees_ids(detector: Detector, graphs: PackedGraphs) -> None:
    is_same = torch.equal(detector.score(renamed(graphs)).score, detector.score(graphs).score)
    assert is_same == (len(detector.id_vocabulary) == 0)


def test_without_calibration_a_capture_needs_no_start(graphs: PackedGraphs) -> None:
    late = torch.arange(len(graphs) - 60, len(graphs))
    for kind, needs_start in (("vgae", True), ("vgae_uncalibrated", False)):
        detector = detector_of(kind, graphs)
        whole, part = detector.score(graphs).score[late], detector.score(graphs.subset(late)).score
        assert torch.allclose(part, whole, atol=1e-4) != needs_start


def test_batches_hold_every_window_once_and_in_order(graphs: PackedGraphs) -> None:
    parts = list(batches(graphs, 100))
    assert [part.num_graphs for part in parts] == [100, 100, 100, len(graphs) - 300]
    assert torch.equal(torch.cat([part.u for part in parts]), graphs.u)


# Scaling


def test_calibrated_features_stay_as_they_are_and_absolute_ones_are_standardised(graphs: PackedGraphs) -> None:
    calibrated, absolute = (detector_of(kind, graphs).network for kind in ("gat", "gat_uncalibrated"))
    for scaling in (calibrated.node_scaling, calibrated.window_scaling):
        assert not scaling.mean.any() and (scaling.scale == 1).all()
    columns = detector_of("gat_uncalibrated", graphs).columns_of(graphs)
    assert torch.equal(absolute.node_scaling.mean, columns.x.mean(0))
    assert torch.equal(absolute.window_scaling.mean, columns.u.mean(0))


# Saved and read back


def read_back(detector: Detector) -> Detector:
    config = json.loads(json.dumps(detector.plain_config()))
    return Detector.from_state(config, detector.state_dict(), source="there.pth")


def test_a_detector_read_back_scores_the_same(detector: Detector, graphs: PackedGraphs) -> None:
    restored = read_back(detector)
    assert (restored.kind, restored.config, restored.reference_s) == (detector.kind, detector.config, REFERENCE_S)
    first, second = detector.score(graphs), restored.score(graphs)
    assert torch.equal(first.score, second.score) and torch.equal(first.features, second.features)


def changed(detector: Detector, **fields: Any) -> dict[str, Any]:
    return {**detector.plain_config(), **fields}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_width": 3}, r"there.pth holds 'layers.0.att' of shape \(1, 2, 2\), GAT has \(1, 2, 3\)"),
        ({"num_layers": 3}, "there.pth has no weights 'layers.2.att', which GAT needs"),
        ({"num_layers": 1}, "there.pth holds"),
        ({"kind": "fusion_agent"}, "there.pth holds no detector .kind 'fusion_agent'.; train one: python train.py"),
        ({"kind": None}, "there.pth holds no detector"),
        ({"kind": "vgae"}, "there.pth was written by another version"),
        ({"new_field": 3}, "there.pth was written by another version .*new_field.*; train it again"),
        ({"num_layers": 0}, "there.pth was written by another version .*num_layers=0 must be positive"),
        ({"reference_s": "soon"}, "there.pth was written by another version"),
    ],
)
def test_another_architecture_or_kind_is_refused_in_one_line(
    graphs: PackedGraphs, fields: dict[str, Any], message: str
) -> None:
    detector = detector_of("gat", graphs)
    with pytest.raises(PredactError, match=message) as caught:
        Detector.from_state(changed(detector, **fields), detector.state_dict(), source="there.pth")
    assert "\n" not in str(caught.value)


def test_a_config_without_its_reference_is_of_another_version(graphs: PackedGraphs) -> None:
    detector = detector_of("vgae", graphs)
    config = detector.plain_config()
    del config["reference_s"]
    with pytest.raises(PredactError, match=r"there\.pth was written by another version"):
        Detector.from_state(config, detector.state_dict(), source="there.pth")


def test_weights_of_the_other_detector_are_refused(graphs: PackedGraphs) -> None:
    vgae, gat = detector_of("vgae", graphs), detector_of("gat", graphs)
    with pytest.raises(PredactError, match=r"there\.pth has no weights .*, which VGAE needs"):
        Detector.from_state(vgae.plain_config(), gat.state_dict(), source="there.pth")


def test_graphs_that_lack_a_feature_are_refused_by_its_name(graphs: PackedGraphs) -> None:
    detector = Detector("gat", GATConfig(), reference_s=REFERENCE_S)
    few = graphs.select(node_features=graphs.node_features[1:], window_features=graphs.window_features)
    with pytest.raises(PredactError, match=f"no feature '{graphs.node_features[0]}'"):
        detector.score(few)
