import suite

from rvc_fast.ops.relpos_attention import SPEC


@suite.parametrize(SPEC)
def test_relpos_attention(case, benchmark):
    suite.run(SPEC, case, benchmark)
