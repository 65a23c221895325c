"""Standardisation against NumPy, where it must not divide, and what travels with the weights."""

from __future__ import annotations

import numpy as np
import torch

from predact.detection.scaling import LARGEST, Standardize


def rows(seed: int = 0) -> torch.Tensor:
    return 5 + 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))


def test_until_fit_it_changes_nothing() -> None:
    values = rows()
    assert torch.equal(Standardize(4)(values), values.clamp(-LARGEST, LARGEST))


def test_scaled_rows_are_what_numpy_makes_of_them() -> None:
    train, other = rows(), rows(1)
    expected = (other.numpy() - train.numpy().mean(0)) / train.numpy().std(0)
    assert np.allclose(Standardize(4).fit(train)(other).numpy(), expected, atol=1e-5)


def test_a_constant_column_is_centred_and_not_divided() -> None:
    train = torch.full((50, 1), 0.7)
    assert Standardize(1).fit(train)(torch.tensor([[0.7], [1.7]])).flatten().tolist() == [0.0, 1.0]


def test_a_value_far_out_ends_at_ten() -> None:
    scaling = Standardize(4).fit(rows())
    assert scaling(torch.full((1, 4), 1e9)).tolist() == [[10.0] * 4]
    assert scaling(torch.full((1, 4), -1e9)).tolist() == [[-10.0] * 4]


def test_the_scale_travels_with_the_weights_and_is_not_trained() -> None:
    fitted, other = Standardize(4).fit(rows()), Standardize(4)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(rows(1)), fitted(rows(1)))
    assert list(fitted.parameters()) == []
