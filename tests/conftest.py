"""Settings and fixtures that all tests share."""

import hypothesis
import pytest
from device_case import device_or_standin

# Times vary on shared machines: no example is refused for being slow. The same examples are drawn
# at every run; `pytest --hypothesis-profile=explore` draws new ones.
_COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("same", derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("explore", print_blob=True, **_COMMON)
hypothesis.settings.load_profile("same")


@pytest.fixture(scope="module")
def device():
    """The array module of the device: cupy where there is one, else tests/standin in its place.

    With the stand-in, kernels run on the host. Module-wide, since hypothesis refuses fixtures that
    are made anew for each test.
    """
    with device_or_standin() as module:
        yield module


@pytest.fixture(scope="module")
def numpy_alone():
    """Take the NumPy forms of kernels alone, which need no compilation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualgrad.kernels.dispatch.numba_use", "never")
        yield
