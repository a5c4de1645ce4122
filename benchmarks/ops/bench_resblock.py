import suite

from rvc_fast.ops.resblock import SPEC


@suite.parametrize(SPEC)
def test_resblock(case, benchmark):
    suite.run(SPEC, case, benchmark)
