from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.windows import inputs, targets, window_view

SERIES = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [10.0, 11.0, 12.0, 13.0, 14.0]])


def test_origin_is_the_first_target_value() -> None:
    assert inputs(SERIES, range(3, 4), 2).tolist() == [[[1.0, 2.0], [11.0, 12.0]]]
    assert targets(SERIES, range(3, 4), 2).tolist() == [[[3.0, 4.0], [13.0, 14.0]]]


def test_view_agrees_with_numpy_and_copies_nothing() -> None:
    view = window_view(SERIES, 3)
    expected = np.lib.stride_tricks.sliding_window_view(SERIES.numpy(), 3, axis=1).swapaxes(0, 1)
    assert np.array_equal(view.numpy(), expected)
    assert view.untyped_storage().data_ptr() == SERIES.untyped_storage().data_ptr()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 30), st.integers(1, 5))
def test_range_tensor_and_slices_by_hand_agree(look_back: int, horizon: int, count: int, step: int) -> None:
    series = torch.arange(2 * 200, dtype=torch.float32).reshape(2, 200)
    origins = range(look_back, look_back + count * step, step)
    by_hand = [(series[:, t - look_back : t], series[:, t : t + horizon]) for t in origins]
    drawn = torch.tensor(list(origins), dtype=torch.int64)
    for chosen in (origins, drawn):
        before, after = inputs(series, chosen, look_back), targets(series, chosen, horizon)
        assert before.shape == (count, 2, look_back) and after.shape == (count, 2, horizon)
        assert all(
            torch.equal(before[n], past) and torch.equal(after[n], future) for n, (past, future) in enumerate(by_hand)
        )


def test_tensor_of_origins_keeps_its_order() -> None:
    assert targets(SERIES, torch.tensor([4, 0]), 1)[:, 0, 0].tolist() == [4.0, 0.0]


def test_series_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no stretch of 6 values lies in a series of 5; shorten"):
        window_view(SERIES, 6)


@pytest.mark.parametrize("origins", [range(1, 3), torch.tensor([2, 1])])
def test_origin_without_enough_history_does_not_wrap_around(origins: range | torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"origins 1 to 2 need values -1 to 1 of a series of 5"):
        inputs(SERIES, origins, 2)


@pytest.mark.parametrize("origins", [range(3, 5), torch.tensor([3, 4])])
def test_origin_without_enough_future_is_refused(origins: range | torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"origins 3 to 4 need values 3 to 5 of a series of 5"):
        targets(SERIES, origins, 2)


def test_origins_that_run_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="forward in time"):
        targets(SERIES, range(3, 1, -1), 1)
