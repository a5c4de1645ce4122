"""Everything that only a GPU can show, in one run: `python -m benchmarks.gpu.check`.

The first-use check, all op tests on the GPU's route, `rvc-fast verify`, the sanitizers of CUDA on the kernels, the
benchmark against PyTorch on the same GPU. One JSON line per step goes to benchmarks/results/. Without a GPU it prints
what it would run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Step(NamedTuple):
    """One command; `needs` is a program that it cannot do without."""

    name: str
    command: tuple[str, ...]
    needs: str | None = None

    def __str__(self) -> str:
        return " ".join("python" if word == sys.executable else word for word in self.command)


def steps(backend: str, rows: Path) -> list[Step]:
    """The commands for "cuda" or "metal"; `rows` is where the benchmark writes its own lines."""
    python = sys.executable
    tests = (python, "-m", "pytest", "tests/ops/test_specs.py", "-k", backend, "-p", "no:cacheprovider")
    # Benchmark shapes take minutes under a sanitizer, and reach no line that the odd ones do not.
    small = (*tests, "-m", "not slow")
    result = [
        Step("first-use check", (python, "-m", "rvc_fast", "info", "--check")),
        Step("op tests", tests),
        Step("verify", (python, "-m", "rvc_fast", "verify", "tests/golden", "--backend", backend)),
    ]
    if backend == "cuda":
        for tool in ("memcheck", "racecheck"):
            sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *small)
            result.append(Step(tool, sanitizer, "compute-sanitizer"))
    bench = (
        "-m",
        "rvc_fast",
        "bench",
        "stages",
        "--backend",
        backend,
        "--against",
        "torch",
        "--out",
        str(rows),
    )
    return [*result, Step("benchmark", (python, *bench))]


def gpu() -> tuple[str, str] | None:
    """Return (backend, name of the GPU), or None without one that MLX can use."""
    import mlx.core as mx

    for backend, module in (("cuda", mx.cuda), ("metal", mx.metal)):
        if module.is_available():
            return backend, str(mx.device_info().get("device_name", backend))
    return None


def run(
    chosen: Sequence[Step], facts: dict[str, Any], report: Callable[[dict[str, Any]], None], limit: float
) -> bool:
    """Run the steps one after the other, none depending on another; True if all passed."""
    good = True
    for step in chosen:
        row = {**facts, "step": step.name, "command": str(step)}
        if step.needs and shutil.which(step.needs) is None:
            report({**row, "result": "not run", "reason": f"{step.needs} is not installed"})
            good = False
            continue
        started = time.perf_counter()
        try:
            done = subprocess.run(
                step.command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
            )
            result = "passed" if done.returncode == 0 else f"exit code {done.returncode}"
            last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
        except subprocess.TimeoutExpired:
            result, last = f"not finished in {limit:g} s", []
        seconds = round(time.perf_counter() - started, 1)
        report({**row, "result": result, "seconds": seconds, "last_line": "".join(last)})
        good = good and result == "passed"
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps, or without a GPU print them; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results"
    )
    parser.add_argument("--limit", type=float, default=1200, metavar="SECONDS", help="for each step")
    args = parser.parse_args(arguments)
    found = gpu()
    if found is None:
        print(
            "No GPU that MLX can use: nothing was run and nothing is claimed. On a machine with one this would run:"
        )
        for step in steps("cuda", args.out):
            print(f"  {step.name}: {step}")
        return 0
    backend, name = found
    today = datetime.date.today().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    facts = {"date": today, "gpu": name, "backend": backend, "platform": platform.platform()}
    path = args.out / f"{today}-{backend}-{slug}-check.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def report(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{row['step']}: {row['result']} {row.get('last_line', row.get('reason', ''))}", flush=True)

        good = run(steps(backend, args.out), facts, report, args.limit)
    print(f"results in {path}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
