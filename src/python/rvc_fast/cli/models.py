"""rvc-fast models: the content encoder and the pitch model that voices need."""

from __future__ import annotations

import argparse

from .common import note, print_json, progress_wanted, show, table

HELP = "list, download and find the content encoder and the pitch model"
DESCRIPTION = "The models every voice needs besides its own file."


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("action", choices=("list", "pull", "where"), help="what to do")
    p.add_argument("names", nargs="*", metavar="NAME", help="models (default: all of them)")
    p.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    from ..weights import registry

    chosen = [registry.find(n) for n in args.names] or list(registry.models().values())
    if args.action == "pull":
        for model in chosen:
            path = registry.pull(model.name, progress=progress_wanted(args))
            note(args, f"{model.name}: {path}")
    if args.json:
        print_json(
            [
                {
                    "name": m.name,
                    "kind": m.kind,
                    "path": str(m.path),
                    "present": m.present,
                    "repository": m.repository,
                    "revision": m.revision,
                    "sha256": m.sha256,
                    "size": m.size,
                    "license": m.license,
                }
                for m in chosen
            ]
        )
    elif args.action == "list":
        rows = [
            (
                m.name,
                f"{m.size / 1e6:.0f} MB",
                m.license,
                "here" if m.present else "not pulled",
                m.description,
            )
            for m in chosen
        ]
        show(table(("name", "size", "licence", "state", "what it is"), rows))
    elif args.action == "where":
        for m in chosen:
            show(str(m.path))
            if not m.present:
                note(args, f"{m.name} is not there yet: rvc-fast models pull {m.name}")
    return 0
