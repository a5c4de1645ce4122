import suite

from rvc_fast.ops.bigru import SPEC


@suite.parametrize(SPEC)
def test_bigru(case, benchmark):
    suite.run(SPEC, case, benchmark)
