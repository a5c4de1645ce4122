import suite

from rvc_fast.ops.wavenet_gate import SPEC


@suite.parametrize(SPEC)
def test_wavenet_gate(case, benchmark):
    suite.run(SPEC, case, benchmark)
