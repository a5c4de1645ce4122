"""The README's tables and claims hold for this code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rvc_fast import env, ops, settings
from rvc_fast.cli import COMMANDS, parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "first-run-on-a-mac.md").read_text()


def test_settings_table_is_that_of_env() -> None:
    for v in env.VARIABLES:
        assert f"| `{v.name}` | {v.default} | {v.help} |" in README
    assert len(re.findall(r"^\| `(?:RVC|HF)_", README, re.M)) == len(env.VARIABLES)


def test_settings_of_a_conversion_are_those_of_the_code() -> None:
    for name, option, default, value, meaning in settings.lines():
        assert f"| `{name}` | `{option}` | {default} | {value} | {meaning} |" in README


def test_every_op_is_listed() -> None:
    for name in ops.__all__:
        if name.islower() and not name.startswith("pack_"):
            assert f"`{name}" in README, name


def test_every_command_is_listed() -> None:
    for name in COMMANDS:
        assert f"`rvc-fast {name}" in README


def options(command: str) -> set[str]:
    """Every option of a command."""
    actions = parser()._subparsers._group_actions[0]
    assert isinstance(actions, argparse._SubParsersAction)
    return {o for a in actions.choices[command]._actions for o in a.option_strings}


def test_options_in_the_documents_exist() -> None:
    for line in re.findall(r"rvc-fast [a-z]+ .*", README + GUIDE):
        command, *words = re.split(r"#|`|\)\"|\"\$\(", line)[0].split()[1:]
        for option in words:
            if re.fullmatch(r"--?[a-z][a-z-]*", option):
                assert option in options(command), line


def test_the_guide_is_five_commands() -> None:
    """Each with what to type, what to see, and what to send otherwise."""
    steps = re.split(r"^## ", GUIDE, flags=re.M)[1:]
    numbered = [step for step in steps if re.match(r"\d\. ", step)]
    assert [step[0] for step in numbered] == list("12345")
    for step in numbered:
        assert "```\n" in step
        assert re.search(r"^\| you should see.* \| otherwise send \|$", step, re.M)
    for command in ("info --check", "demo --play", "verify tests/golden", "bench --quick"):
        assert f"```\nrvc-fast {command}\n```" in GUIDE
