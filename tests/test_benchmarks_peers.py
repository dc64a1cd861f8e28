"""The check that every peer of the benchmark must pass can be failed."""

import numpy as np
import pytest

from benchmarks.peers import oracle
from benchmarks.peers.task import GROUPS, QUANTITIES, check_task


@pytest.fixture
def expected():
    return oracle.spectra(*next(check_task().batches()), GROUPS)


def test_the_truth_has_no_error(expected):
    assert oracle.errors(expected, expected, QUANTITIES) == dict.fromkeys(QUANTITIES, 0.0)


def test_zeros_at_the_end_are_no_error(expected):
    padded = {key: np.append(values, 0.0) for key, values in expected.items()}
    assert max(oracle.errors(padded, expected, QUANTITIES).values()) == 0.0


def test_an_error_is_seen_in_its_quantity(expected):
    key = "hidden_1", "adjoint", "b"
    wrong = expected | {key: expected[key] * 1.01}
    errors = oracle.errors(wrong, expected, QUANTITIES)
    assert errors["adjoint"] == pytest.approx(0.01)
    assert errors["gradient"] == 0.0


def test_a_missing_spectrum_is_an_error(expected):
    some = dict(list(expected.items())[1:])
    with pytest.raises(ValueError, match="Missing"):
        oracle.errors(some, expected, QUANTITIES)


def test_spectra_of_quantities_that_are_not_due_are_an_error(expected):
    with pytest.raises(ValueError, match="not due"):
        oracle.errors(expected, expected, ("gradient",))
