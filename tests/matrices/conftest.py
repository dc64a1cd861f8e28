"""What tests of matrices share."""

import numpy as np
import pytest


@pytest.fixture(params=["all", "neighbours", "scattered", "one"])
def examples(request):
    """Numbers of some of six examples, as matrices are asked for them."""
    return {
        "all": None,
        "neighbours": np.array([1, 2, 3]),
        "scattered": np.array([0, 2, 5]),
        "one": np.array([4]),
    }[request.param]
