import suite

from rvc_fast.ops.nsf_source import SPEC


@suite.parametrize(SPEC)
def test_nsf_source(case, benchmark):
    suite.run(SPEC, case, benchmark)
