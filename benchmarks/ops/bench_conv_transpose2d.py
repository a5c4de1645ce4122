import suite

from rvc_fast.ops.conv_transpose2d import SPEC


@suite.parametrize(SPEC)
def test_conv_transpose2d(case, benchmark):
    suite.run(SPEC, case, benchmark)
