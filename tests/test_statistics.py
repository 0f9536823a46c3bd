"""The statistical helper itself: how often it cries wolf, and that it bites."""

import pytest
import torch

from tests.statistics import assert_unbiased


def test_false_alarm_rate_is_the_stated_one():
    """1,000 correct experiments at 1e-2: between 1 and 25 alarms, but for 1 in 10^4 (binomial, mean 10)."""
    torch.manual_seed(0)
    alarms = 0
    for _ in range(1000):
        try:
            assert_unbiased(torch.randn(500, 4), torch.zeros(4), false_alarm=1e-2)
        except AssertionError:
            alarms += 1
    assert 1 <= alarms <= 25


def test_a_small_bias_is_found():
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(torch.randn(20_000, 2) + 0.1, torch.zeros(2))
