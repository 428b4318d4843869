"""The CUDA kernels compute what the article's functions do, for images of any number and size."""

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.comparisons import assert_same, closest_to_kink, images, make_model
from test_gpu_kernels import by_chainer, computed

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 15), st.integers(1, 34))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, train=st.booleans(), seed=st.integers(0, 2**16))
def test_a_step_equals_chainers_for_every_shape_and_mode(device, shape, train, seed):
    x, t = images(seed, shape)
    model = make_model(seed)
    # One pixel has no variance: it is divided by the root of eps, and its rounding with it.
    assume(np.prod(shape) > 1 or not train)
    assume(closest_to_kink(model, x, train) > 1e-5)
    assert_same(computed(device, model, x, t, train), by_chainer(model, x, t, train), 3e-4)
