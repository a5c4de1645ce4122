"""Rebuild the demo models: data, three trainings and the recogniser, export, evaluation.

python -m training                 # everything; goes on where it was interrupted
python -m training --plan tiny     # the same in a minute or two, to test the scripts
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import rvc_fast

from . import content, corpus, evaluate, export, people, pitch, sounds, synthesizer
from .loop import device
from .plan import FULL, PLANS, Plan

INFO = "rvc_fast demo voice, trained on speech of synthesizers"


class Stages:
    """Runs and times the stages; what earlier runs spent is kept in times.json."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "times.json"
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    def __call__(self, name: str):  # type: ignore[no-untyped-def]
        from contextlib import contextmanager

        @contextmanager
        def measure():  # type: ignore[no-untyped-def]
            print(f"== {name}", flush=True)
            began = time.monotonic()
            try:
                yield
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
                self._file.write_text(json.dumps(self.seconds, indent=1) + "\n")

        return measure()


def rebuild(plan: Plan, work: Path, output: Path) -> None:
    """Run every stage of `plan` that `work` does not hold the result of, and write the models to `output`."""
    folder = work / plan.name
    if plan.warm and not all(
        (folder / "warm" / name).exists()
        for name in ("embedder", "rmvpe.pt", "voice.pth", "recogniser.safetensors")
    ):
        raise FileNotFoundError(
            f"[training] {folder / 'warm'} must hold the models to begin with: training/README.md says which"
        )
    stage = Stages(folder)
    with stage("data"):
        corpora = corpus.build(plan, folder / "data")
    test, heard = corpora["test"], content.material(corpora)
    with stage("content encoder"):
        rounds = range(len(plan.encoder) + 1)
        encoders = [content.train_encoder(plan, heard, test, folder, n) for n in rounds]
    with stage("synthesizer"):
        voice = synthesizer.train(plan, encoders, corpora, folder)
    with stage("pitch model"):
        network = pitch.train(plan, heard, test, folder)
    with stage("recogniser"):
        recogniser = content.train_recogniser(plan, corpora["recogniser"], test, folder)
    with stage("export"):
        export.write(encoders[-1], network, voice, synthesizer.config(plan), output, INFO)
        targets = evaluate.targets(corpora["test_target"], [])
        export.write_speakers(targets, output / "speakers.json")
        sounds.write(output / "sounds")
        export.write_recogniser(recogniser, folder / "recogniser.safetensors")
    with stage("evaluation"):
        models = output / "voice.pth", output / "embedder", output / "rmvpe.pt"
        converter = rvc_fast.load(models[0], embedder=models[1], pitch_model=models[2])
        found = evaluate.evaluate(converter, recogniser, test, targets, evaluate.files_of(*models))
        found["people"] = evaluate.on_people(models, targets, people.shortest(plan.people))
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n")
    print(evaluate.people_table(found["people"]))
    print(evaluate.table(found))
    minutes = {name: f"{seconds / 60:.1f}" for name, seconds in stage.seconds.items()}
    print(f"minutes on {device()}: {minutes}, in all {sum(stage.seconds.values()) / 60:.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="training", description="Rebuild the demo models.")
    parser.add_argument("--plan", choices=PLANS, default=FULL.name)
    parser.add_argument(
        "--work", type=Path, default=Path("build/training"), help="data and checkpoints (build/training)"
    )
    parser.add_argument(
        "--output", type=Path, help="where the models go (a folder `models` in the work folder)"
    )
    args = parser.parse_args()
    plan = PLANS[args.plan]
    rebuild(plan, args.work, args.output or args.work / plan.name / "models")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
