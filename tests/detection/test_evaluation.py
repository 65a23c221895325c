"""The table: hours by hand, thresholds that no test label reaches, metrics as computed directly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs
from predact.detection.detectors import Detector
from predact.detection.evaluation import Row, detector_row, evaluate, hours, scored
from predact.detection.metrics import binary_metrics, choose_threshold
from tests.detection.tiny import GAT_CONFIG, REFERENCE_S, capture, hand_graphs, tiny_cache, tiny_dataset


def labelled(label: Tensor, **fields: list[float]) -> PackedGraphs:
    return hand_graphs(torch.zeros(len(label), 1), window_features=("u",), y=label.tolist(), **fields)


def spanning(start_s: list[float], end_s: list[float], capture: list[int] | None = None) -> float:
    u = torch.zeros(len(start_s), 1)
    return hours(hand_graphs(u, window_features=("u",), start_s=start_s, end_s=end_s, capture=capture)) * 3600


def test_windows_side_by_side_cover_what_they_span() -> None:
    assert spanning([0, 1, 2], [1, 2, 3]) == pytest.approx(3)


def test_overlaps_count_once_and_gaps_not_at_all() -> None:
    assert spanning([0, 0.5, 1], [1, 1.5, 2]) == pytest.approx(2)
    assert spanning([0, 10, 11], [1, 11, 12]) == pytest.approx(3)


def test_captures_add_up() -> None:
    assert spanning([0, 1, 0, 1], [1, 2, 1.5, 2.5], capture=[0, 0, 1, 1]) == pytest.approx(2 + 2.5)


def test_a_clock_that_steps_back_takes_no_time_away() -> None:
    assert spanning([0, 5, 1], [1, 6, 2]) == pytest.approx(1 + 0 + 1)


@pytest.mark.parametrize("stride", [20, 100])
def test_a_capture_cut_into_windows_lasts_as_long_as_it_did(stride: int) -> None:
    frames = capture("DoS-A")
    covered = hours(build_graphs(frames, WindowConfig(stride=stride))) * 3600
    assert covered == pytest.approx(frames.duration_s, rel=0.01)


def row(seed: int, sizes: dict[str, int]) -> Row:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(size, generator=generator) for name, size in sizes.items()}
    return Row(scores.pop("val"), scores)


VAL = labelled(torch.tensor([0, 1] * 20))
SUBSETS = {"easy": labelled(torch.tensor([0, 0, 1] * 10)), "hard": labelled(torch.tensor([1, 0] * 9))}
ROWS = {name: row(seed, {"val": 40, "easy": 30, "hard": 18}) for seed, name in enumerate(("gat", "vgae"))}


@pytest.mark.parametrize("seed", range(5))
def test_no_test_label_moves_a_threshold(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    other = {
        name: replace(graphs, y=torch.randint(0, 2, graphs.y.shape, generator=generator, dtype=torch.uint8))
        for name, graphs in SUBSETS.items()
    }
    assert evaluate(ROWS, VAL, other).thresholds == evaluate(ROWS, VAL, SUBSETS).thresholds


def test_no_test_score_moves_a_threshold_or_a_validation_metric() -> None:
    zeros = {
        name: replace_test(each, {subset: torch.zeros_like(score) for subset, score in each.test.items()})
        for name, each in ROWS.items()
    }
    first, second = evaluate(ROWS, VAL, SUBSETS), evaluate(zeros, VAL, SUBSETS)
    assert first.thresholds == second.thresholds
    assert first.validation == second.validation


def replace_test(each: Row, test: dict[str, Tensor]) -> Row:
    return replace(each, test=test)


def test_thresholds_and_metrics_are_those_of_each_row_alone() -> None:
    evaluation = evaluate(ROWS, VAL, SUBSETS)
    for name, each in ROWS.items():
        threshold = choose_threshold(each.val, VAL.y)
        assert evaluation.thresholds[name] == threshold
        assert evaluation.validation[name] == binary_metrics(each.val, VAL.y, threshold=threshold, hours=40 / 3600)
        for subset, graphs in SUBSETS.items():
            expected = binary_metrics(each.test[subset], graphs.y, threshold=threshold, hours=len(graphs) / 3600)
            assert evaluation.metrics[subset][name] == expected
            assert torch.equal(evaluation.scores[subset][name], each.test[subset])


def test_a_rules_own_threshold_stays() -> None:
    rule = replace(ROWS["gat"], threshold=0.9)
    evaluation = evaluate({"rule": rule}, VAL, SUBSETS)
    assert evaluation.thresholds == {"rule": 0.9}
    expected = binary_metrics(rule.test["easy"], SUBSETS["easy"].y, threshold=0.9, hours=30 / 3600)
    assert evaluation.metrics["easy"]["rule"] == expected


def test_a_subset_without_attacks_has_false_alarms_and_no_f1() -> None:
    benign = {"quiet": labelled(torch.zeros(30, dtype=torch.long))}
    rows = {"gat": Row(ROWS["gat"].val, {"quiet": torch.ones(30)}, threshold=0.5)}
    metrics = evaluate(rows, VAL, benign).metrics["quiet"]["gat"]
    assert (metrics["f1"], metrics["auroc"], metrics["fpr"]) == (None, None, 1.0)
    assert metrics["false_alarms_per_hour"] == pytest.approx(3600)


def test_validation_windows_are_scored_among_their_whole_captures(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset, split = tiny_dataset(tiny_cache(tmp_path_factory))
    sizes: list[int] = []

    def position(graphs: PackedGraphs) -> Tensor:
        sizes.append(len(graphs))
        return torch.arange(len(graphs)).float()

    each = scored(position, dataset, split.val)
    assert torch.equal(each.val, split.val.float())
    assert sorted(sizes) == sorted([len(dataset.train), *map(len, dataset.test.values())])
    assert {subset: len(score) for subset, score in each.test.items()} == {
        subset: len(graphs) for subset, graphs in dataset.test.items()
    }


def test_a_detectors_row_is_what_it_says_of_each_part(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset, split = tiny_dataset(tiny_cache(tmp_path_factory))
    torch.manual_seed(0)
    detector = Detector("gat", GAT_CONFIG, reference_s=REFERENCE_S)
    each = detector_row(detector, dataset, split.val)
    assert each.threshold is None
    assert torch.equal(each.val, detector.score(dataset.train).score[split.val])
    for subset, graphs in dataset.test.items():
        assert torch.equal(each.test[subset], detector.score(graphs).score)
