"""On another device than the library's default one: arrays of both in one operation are an error."""

import numpy as np
import pytest
from loss_options import COMBINATIONS
from public_functions import every_result

pytestmark = pytest.mark.only_backends("array-api-strict")


@pytest.mark.parametrize("count", [12, 0])
@pytest.mark.parametrize("names", [(), *COMBINATIONS], ids="+".join)
def test_results_are_on_the_device_of_the_arrays(library, names, count):
    xp = library.xp
    device, default = xp.Device("device1"), xp.Device("CPU_DEVICE")

    def on_device(values):
        return xp.asarray(values, device=device)

    numpys = every_result(names, np.asarray, count)
    for (name, results), (_, expected) in zip(every_result(names, on_device, count), numpys, strict=True):
        for result, same in zip(results, expected, strict=True):
            assert result.device == device, name
            values = np.asarray(xp.asarray(result, device=default))
            assert values.dtype == same.dtype
            np.testing.assert_allclose(values, same, rtol=1e-5 if "float32" in name else 1e-11, atol=1e-14)
