"""Build the site: `python docs/build.py [FOLDER]` writes FOLDER/source and FOLDER/site (FOLDER is build/docs).

Pages that people write are copied. The pages of the ops are made from their docstrings and OpSpecs, and the pages of
the bench report from `benchmarks/results`. A link that leads nowhere is an error.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import docstring_parser
import latex2mathml.converter
import mlx.core as mx
import numpy as np

from rvc_fast import ops
from rvc_fast.bench import report, results
from rvc_fast.ops import registry
from rvc_fast.ops.op import OPS, specs
from rvc_fast.ops.spec import OpSpec

ROOT = Path(__file__).resolve().parents[1]
# Pages outside this folder, and files that they link to. All pages have the same place in the site, so that links hold.
COPIED = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "models/demo/README.md",
    "training/README.md",
    "tests/metal/README.md",
    "examples/README.md",
    *(f"examples/{path.name}" for path in sorted((ROOT / "examples").glob("*.py"))),
)
BACKENDS = {"cpu": "CPU", "metal": "Metal", "cuda": "CUDA"}


def main(folder: Path) -> int:
    source = folder / "source"
    shutil.rmtree(folder, ignore_errors=True)
    for name in COPIED:
        write(source / name, (ROOT / name).read_text())
    for path in sorted((ROOT / "docs").glob("*.md")):
        write(source / "docs" / path.name, with_formulas(path.read_text()))
    for name, spec in specs().items():
        write(source / "ops" / f"{name}.md", op_page(name, spec))
    write(source / "ops" / "README.md", overview())
    write(source / "bench" / "README.md", bench_page(source / "bench"))
    pages = ["ops/README.md", *(f"ops/{name}.md" for name in OPS)]
    config = (ROOT / "docs" / "zensical.toml").read_text()
    write(folder / "zensical.toml", config.replace('"OPS"', json.dumps(pages)))
    return check(folder)


def check(folder: Path) -> int:
    """Make the pages of a folder into a site. Return 0, or something else if a link is broken."""
    command = ["zensical", "build", "--clean", "--strict", "-f", str(folder / "zensical.toml")]
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True)
    # Its last lines are a traceback of its own program, which says nothing about the pages.
    print((done.stdout + done.stderr).split("Traceback", 1)[0])
    return done.returncode


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def with_formulas(text: str) -> str:
    """Turn every block of mathematics into MathML, which browsers draw without any script."""

    def formula(match: re.Match[str]) -> str:
        return latex2mathml.converter.convert(match[1].strip(), display="block") + "\n"

    return re.sub(r"^```math\n(.*?)^```$", formula, text, flags=re.M | re.S)


def public_names() -> dict[str, str]:
    """Return the module of every public name of `rvc_fast.ops`, as its `__init__` imports them."""
    tree = ast.parse(Path(inspect.getfile(ops)).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1]
    names = {alias.name: str(node.module) for node in imports for alias in node.names}
    return {name: module for name, module in names.items() if name in ops.__all__}


def overview() -> str:
    rows = [(f"[{name}]({name}.md)", *(runs_on(name, backend) for backend in BACKENDS)) for name in specs()]
    helpers = [
        described(name, 2)
        for name, module in public_names().items()
        if module not in OPS and (name.islower() or isinstance(getattr(ops, name), type))
    ]
    intro = (
        "Each op is a function of `rvc_fast.ops` on plain `mx.array`s, channels last. Every op has a reference in stock "
        "MLX, which defines it. A compiled kernel computes the same, faster, where there is one."
    )
    return "\n\n".join(["# Ops", intro, table(("op", *BACKENDS.values()), rows), *helpers]) + "\n"


def op_page(name: str, spec: OpSpec) -> str:
    """Return the page of an op: what it computes, how it is called, its definition, kernels, cases and tolerances."""
    module = import_module(f"rvc_fast.ops.{name}")
    parts = [f"# {name}", prose(inspect.getdoc(module) or ""), f"[The formula](../docs/formulas.md#{name})"]
    parts += [described(public, 2) for public, home in public_names().items() if home == name]
    parts += ["## The definition", DEFINITION, source(OPS[name].reference)]
    parts.append("## Where it runs")
    parts.append(table(("device", "what runs"), [(BACKENDS[b], runs_on(name, b)) for b in BACKENDS]))
    for path in sorted((ROOT / "src" / "kernels" / name).glob("*.inc")):
        parts += [f"### The GPU kernel `{path.name}`", fenced(head(path), "text")]
    parts += ["## How exact it is", TOLERANCE]
    rows = [(dtype, f"{t.max_abs:g}", f"{t.rms:g}") for dtype, t in spec.tolerance.items()]
    parts.append(table(("inputs", "largest error", "RMS error"), rows))
    parts += ["## Cases", CASES, table(("case", "arguments", "MFLOP", "MB", "timed"), cases(spec))]
    return "\n\n".join(parts) + "\n"


DEFINITION = (
    "Kernels are compared with this function, and gradients are its gradients. `o` holds what is no array."
)
TOLERANCE = (
    "A kernel may differ from the definition by this much. The largest error counts relative to the largest value, "
    "the RMS error relative to the RMS of all values."
)
CASES = (
    "Tests run all of these on every backend; benchmarks time the marked ones. The work is what the definition needs: "
    "multiplications and additions, and bytes of float32 that must at least be read and written."
)


def cases(spec: OpSpec) -> Iterable[Sequence[str]]:
    for case in spec.cases:
        kwargs = case.make(np.random.default_rng(0))
        arguments = ", ".join(f"{key} {short(value)}" for key, value in kwargs.items())
        work = f"{spec.flops(**kwargs) / 1e6:.3g}", f"{spec.bytes(**kwargs) / 1e6:.3g}"
        yield case.name, arguments, *work, "yes" if case.benchmark else ""


def short(value: Any) -> str:
    """Return an argument as a table shows it: arrays by their shape."""
    if isinstance(value, mx.array | np.ndarray):
        return " x ".join(map(str, value.shape)) or "()"
    if isinstance(value, list):
        return f"({len(value)} of them)"
    return repr(value)


def runs_on(name: str, backend: str) -> str:
    if backend not in registry.backends(name):
        return "the definition"
    return "MLX's own kernels" if registry.of_mlx(name, backend) else "a kernel of ours"


def described(name: str, level: int) -> str:
    """Return a public name's signature and docstring as Markdown."""
    thing = getattr(ops, name)
    parsed = docstring_parser.parse(inspect.getdoc(thing) or "", docstring_parser.DocstringStyle.GOOGLE)
    parts = [f"{'#' * level} `{name}`", fenced(signature(name, thing), "python")]
    parts += [prose(text) for text in (parsed.short_description, parsed.long_description) if text]
    if parsed.params:
        rows = [(f"`{p.arg_name}`", one_line(p.description)) for p in parsed.params]
        parts.append(table(("argument", "meaning"), rows))
    if parsed.returns:
        # A colon in the first words makes the parser take what is before it for a type.
        said = [parsed.returns.type_name, parsed.returns.description]
        parts.append(f"**Returns** {one_line(': '.join(filter(None, said)))}")
    parts += [f"**Raises** `{r.type_name}`: {one_line(r.description)}" for r in parsed.raises]
    return "\n\n".join(parts)


def signature(name: str, thing: Any) -> str:
    """Return a call with its types as they stand in the source, one argument a line if it is long."""
    found = inspect.signature(thing)
    arguments, keyword_only = [], False
    for p in found.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            arguments.append("*")
        kind = "" if p.annotation is p.empty else f": {p.annotation}"
        default = "" if p.default is p.empty else f" = {p.default!r}"
        arguments.append(f"{p.name}{kind}{default}")
    result = "" if found.return_annotation in (found.empty, None) else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(arguments)}){result}"
    return line if len(line) <= 88 else f"{name}(\n    " + ",\n    ".join(arguments) + f",\n){result}"


def prose(text: str) -> str:
    """Return a docstring as Markdown. A paragraph that begins with an equation keeps its lines."""
    paragraphs = re.split(r"\n\s*\n", text)
    equation = re.compile(r"[\w'\[\](), ]+ = ")
    return "\n\n".join(fenced(p, "text") if equation.match(p) else p for p in paragraphs)


def source(function: Any) -> str:
    return fenced(inspect.getsource(function), "python")


def head(path: Path) -> str:
    """Return the comment at the head of a kernel's file."""
    lines = path.read_text().splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in lines[:count])


def bench_page(folder: Path) -> str:
    """Write a report of each results file and return the page that links to them."""
    parts = ["# Speed", SPEED]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"), reverse=True):
        rows = results.read(path)
        write(folder / f"{path.stem}.html", report.page(rows, []))
        first = rows[0]
        parts += [
            f"## {first['date'][:10]}, {results.machine_of(first)}",
            f"[The whole report]({path.stem}.html)",
        ]
        found = []
        for row in rows:
            ratios = [f"{peer} {p['ratio']:.2f}" for peer, p in row["peers"].items() if "ratio" in p]
            if row["p50_ms"] is not None and ratios:
                found.append((results.described(row), results.duration(row["p50_ms"]), ", ".join(ratios)))
        parts.append(table(("what", "time", "time of the others, ours being 1"), found))
    return "\n\n".join(parts) + "\n"


SPEED = (
    "These are the files of `benchmarks/results`, made by `rvc-fast bench`. [The README](../README.md#how-fast) says how "
    "they were measured and what is compared. Rows without a peer are in the reports."
)


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
