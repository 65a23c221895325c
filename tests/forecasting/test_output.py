"""The loss of the networks without quantiles, by hand."""

import torch

from predact.forecasting.output import Output, squared_error


def test_squared_error_is_the_mean_over_every_value_and_looks_at_the_point_alone():
    point = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    target = torch.tensor([[[1.0, 4.0], [3.0, -2.0]]])
    assert squared_error(Output(point, None), target) == (0 + 4 + 9 + 1) / 4
    assert squared_error(Output(point, torch.full((1, 2, 2, 3), 99.0)), target) == (0 + 4 + 9 + 1) / 4
