import suite

from rvc_fast.ops.linear import SPEC


@suite.parametrize(SPEC)
def test_linear(case, benchmark):
    suite.run(SPEC, case, benchmark)
