"""python child.py COMMAND...: `rvc-fast COMMAND` as it is, or with --fake with models that take no time."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
# Whoever runs the tests may ignore signals, and children inherit that.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def fake() -> None:
    """Convert by models whose outputs can be foreseen, 20 ms for each sound."""
    import rvc_fast.converter
    from fakes import FakeEmbedder, FakePitch, FakeVoice
    from rvc_fast.converter import Converter

    class Slow(Converter):
        def convert(self, *arguments, **options):
            time.sleep(0.02)
            return super().convert(*arguments, **options)

    rvc_fast.converter.load = lambda **_: Slow(FakeVoice(), FakeEmbedder(), FakePitch())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--fake":
        fake()
        del arguments[0]
    from rvc_fast.cli import main

    code = main(arguments)
    peak = [
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmPeak" in line
    ]
    print("peak", *peak, file=sys.stderr)
    sys.exit(code)
