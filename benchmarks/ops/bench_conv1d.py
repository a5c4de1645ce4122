import suite

from rvc_fast.ops.conv1d import SPEC


@suite.parametrize(SPEC)
def test_conv1d(case, benchmark):
    suite.run(SPEC, case, benchmark)
