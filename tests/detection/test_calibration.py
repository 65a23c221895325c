"""Calibration by hand and by property: what it reads, what it must not, where it falls back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from predact.canbus.packed import PackedGraphs
from predact.detection.calibration import MAD_TO_DEVIATION, MIN_REFERENCE_WINDOWS, PRIOR_WINDOWS, Prior, calibrate
from tests.detection.tiny import hand_graphs

REFERENCE_S = 11.0
PRIOR = Prior(centre=torch.tensor([100.0]), deviation=torch.tensor([2.0]))


def windows(values: list[float], **fields: list[int]) -> PackedGraphs:
    """Windows of one second each, with one value."""
    return hand_graphs(torch.tensor(values).unsqueeze(1), window_features=("value",), **fields)


def calibrated(graphs: PackedGraphs, prior: Prior = PRIOR, **fields: float) -> Tensor:
    return calibrate(graphs.u, graphs, prior, reference_s=REFERENCE_S, **fields).squeeze(1)


def test_the_prior_is_median_and_median_absolute_deviation() -> None:
    prior = Prior.fit(torch.tensor([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0], [8.0, 7.0], [99.0, 7.0]]))
    assert prior.centre.tolist() == [4.0, 7.0]
    assert prior.deviation.tolist() == pytest.approx([3.0 * MAD_TO_DEVIATION, 0.0])
    # A value without spread is counted in its own unit.
    assert prior.z(torch.tensor([[4.0, 9.0]])).tolist() == [[0.0, 2.0]]


def test_the_deviation_is_that_of_a_normal_distribution() -> None:
    sample = 3 + 2 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    assert Prior.fit(sample).deviation.item() == pytest.approx(2.0, rel=0.01)


def test_calibration_by_hand() -> None:
    # Eleven windows end within the reference: 0 ... 10, so the centre is 5 and their absolute deviations' median is 3.
    z = calibrated(windows([*map(float, range(11)), 105.0, 5.0]))
    weight = 11 / (11 + PRIOR_WINDOWS)
    scale = math.sqrt(weight * (3 * MAD_TO_DEVIATION) ** 2 + (1 - weight) * 2.0**2)
    assert z.tolist() == pytest.approx([*((value - 5) / scale for value in range(11)), 100 / scale, 0.0])


def test_with_an_infinite_prior_the_fleets_spread_counts_alone() -> None:
    z = calibrated(windows([*map(float, range(11)), 105.0]), prior_windows=math.inf)
    assert z[-1].item() == pytest.approx(100 / 2)


def test_a_window_that_reaches_over_the_references_end_is_not_part_of_it() -> None:
    # The twelfth starts within the reference and ends after it: with it, the centre would be 6.
    values = [*map(float, range(11)), 50.0]
    end_s = [*map(float, range(1, 12)), 11.5]
    graphs = replace(windows(values), start_s=torch.arange(12.0).double() * 0.9, end_s=torch.tensor(end_s).double())
    assert calibrated(graphs)[5].item() == 0.0


def test_labels_are_not_read() -> None:
    graphs = windows([*map(float, range(11)), 105.0, 5.0], y=[0] * 11 + [1, 0])
    assert torch.equal(calibrated(replace(graphs, y=1 - graphs.y)), calibrated(graphs))


@pytest.mark.parametrize("num_windows", [1, MIN_REFERENCE_WINDOWS - 1])
def test_a_short_start_takes_the_fleets_centre_and_spread(num_windows: int) -> None:
    values = [float(number) for number in range(num_windows)]
    graphs = windows([*values, 104.0])
    far = replace(graphs, start_s=graphs.start_s.clone(), end_s=graphs.end_s.clone())
    far.start_s[-1], far.end_s[-1] = 50.0, 51.0
    assert calibrated(far).tolist() == [(value - 100) / 2 for value in values] + [2.0]


def test_windows_without_their_captures_start_take_the_fleets() -> None:
    graphs = windows([*map(float, range(30))])
    assert calibrated(graphs.subset(torch.arange(20, 30))).tolist() == [(value - 100) / 2 for value in range(20, 30)]


def test_each_capture_is_calibrated_by_itself() -> None:
    first = windows([*map(float, range(11)), 105.0])
    second = windows([value * 10 + 1000 for value in range(11)] + [7.0])
    both = PackedGraphs.concatenate([first, second])
    assert torch.equal(calibrated(both), torch.cat([calibrated(first), calibrated(second)]))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=3))
def test_a_few_outliers_in_the_start_hardly_move_anything(outliers: list[float]) -> None:
    clean = 100 + torch.randn(30, generator=torch.Generator().manual_seed(0))
    dirty = clean.clone()
    dirty[: len(outliers)] = torch.tensor(outliers)
    end_s = [(number + 1) / 3 for number in range(30)] + [60.0]
    start_s = [number / 3 for number in range(30)] + [59.0]
    judged = []
    for values in (clean, dirty):
        u = torch.cat([values, torch.tensor([110.0])]).unsqueeze(1)
        graphs = hand_graphs(u, window_features=("value",), start_s=start_s, end_s=end_s)
        judged.append(calibrated(graphs)[-1].item())
    assert judged[1] == pytest.approx(judged[0], rel=0.15)


@given(st.integers(-1000, 1000))
def test_a_level_that_is_the_vehicles_own_drops_out(level: int) -> None:
    # Whole numbers, so that adding the level is exact.
    values = [3.0, 8, 1, 4, 4, 9, 2, 6, 5, 3, 7, 60, 2]
    moved = calibrated(windows([value + level for value in values]))
    assert torch.allclose(moved, calibrated(windows(values)), atol=1e-4)


def test_a_value_that_never_changed_is_counted_in_its_own_unit() -> None:
    still = Prior(centre=torch.tensor([0.0]), deviation=torch.tensor([0.0]))
    assert calibrated(windows([4.0] * 12 + [6.5]), still)[-1].item() == 2.5


def test_a_clock_that_steps_back_puts_no_later_window_into_the_reference() -> None:
    # After window 11 the logger's clock restarts; what comes then is not the capture's start.
    values = [*map(float, range(11)), 500.0, *[1000.0] * 30]
    start_s = [*map(float, range(11)), 20.0, *(number / 10 for number in range(30))]
    graphs = hand_graphs(
        torch.tensor(values).unsqueeze(1),
        window_features=("value",),
        start_s=start_s,
        end_s=[value + 0.1 for value in start_s],
    )
    assert calibrated(graphs)[5].item() == 0.0


def test_the_prior_of_captures_is_the_median_over_their_starts() -> None:
    captures = []
    for level, spread in ((10.0, 1.0), (50.0, 5.0), (1000.0, 2.0)):
        # The windows after the start are an attack's, and must not count.
        captures.append(windows([level + spread * (number - 5) for number in range(11)] + [1e6] * 20))
    graphs = PackedGraphs.concatenate(captures)
    prior = Prior.of_captures(graphs.u, graphs, reference_s=REFERENCE_S)
    assert prior.centre.tolist() == [50.0]
    assert prior.deviation.tolist() == pytest.approx([2.0 * 3 * MAD_TO_DEVIATION])
