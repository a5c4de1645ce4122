import suite

from rvc_fast.ops.quantized_linear import SPEC


@suite.parametrize(SPEC)
def test_quantized_linear(case, benchmark):
    suite.run(SPEC, case, benchmark)
