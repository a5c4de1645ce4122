import suite

from rvc_fast.ops.layer_norm import SPEC


@suite.parametrize(SPEC)
def test_layer_norm(case, benchmark):
    suite.run(SPEC, case, benchmark)
