import suite

from rvc_fast.ops.knn import SPEC


@suite.parametrize(SPEC)
def test_knn(case, benchmark):
    suite.run(SPEC, case, benchmark)
