import suite

from rvc_fast.ops.conv2d import SPEC


@suite.parametrize(SPEC)
def test_conv2d(case, benchmark):
    suite.run(SPEC, case, benchmark)
