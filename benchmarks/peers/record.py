"""Write recorded.safetensors beside this file: what full-size models with seeded weights give, a sample of each stage.

    python -m benchmarks.peers.record FOLDER

The peers are compared with the golden cases in FOLDER first (`benchmarks.peers.check`); nothing is written if one is below
the bar. The file is read by `rvc_fast.bench.sides.recorded`. It is made again when `rvc_fast.bench.models` or the
inputs in `rvc_fast.bench.work` change.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.numpy import save_file

from rvc_fast.bench.sides import RECORDED_SECONDS, sample
from rvc_fast.bench.work import STAGES, Task

from . import check
from .sides import Eager


def record() -> None:
    """Write recorded.safetensors beside this file."""
    side, found = Eager(), {}
    for stage in (*STAGES, "warm"):
        task = Task("convert" if stage == "warm" else "stages", stage, RECORDED_SECONDS)
        outputs = [y for run in side.runs(task) for y in side.outputs(task, run())]
        found |= {f"{stage}.{i}": values for i, values in enumerate(sample(outputs))}
    save_file(found, Path(__file__).with_name("recorded.safetensors"))


if __name__ == "__main__":
    if code := check.main():
        sys.exit(code)
    record()
