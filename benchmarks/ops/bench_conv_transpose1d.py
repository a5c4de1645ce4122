import suite

from rvc_fast.ops.conv_transpose1d import SPEC


@suite.parametrize(SPEC)
def test_conv_transpose1d(case, benchmark):
    suite.run(SPEC, case, benchmark)
