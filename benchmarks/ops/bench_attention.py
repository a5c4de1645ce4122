import suite

from rvc_fast.ops.attention import SPEC


@suite.parametrize(SPEC)
def test_attention(case, benchmark):
    suite.run(SPEC, case, benchmark)
