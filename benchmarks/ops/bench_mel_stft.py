import suite

from rvc_fast.ops.mel_stft import SPEC


@suite.parametrize(SPEC)
def test_mel_stft(case, benchmark):
    suite.run(SPEC, case, benchmark)
