"""The residual stages of a 48 kHz voice, one second each, by the direct and by the fast algorithm."""

import pytest
import suite

from rvc_fast import native
from rvc_fast.ops.resblock import SPEC


@pytest.mark.parametrize("algorithm", ["direct", "auto"])
@suite.parametrize(SPEC)
def test_resblock(case, algorithm, benchmark):
    if native.ext() is None:
        pytest.skip(native.load()[1])
    suite.run(SPEC, case, benchmark, algorithm)
