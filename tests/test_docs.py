"""The README's tables and claims hold for this code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rvc_fast import env, ops
from rvc_fast.cli import COMMANDS, parser

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_settings_table_is_that_of_env() -> None:
    for v in env.VARIABLES:
        assert f"| `{v.name}` | {v.default} | {v.help} |" in README
    assert len(re.findall(r"^\| `(?:RVC|HF)_", README, re.M)) == len(env.VARIABLES)


def test_every_op_is_listed() -> None:
    for name in ops.__all__:
        if name.islower() and not name.startswith("pack_"):
            assert f"`{name}" in README, name


def test_every_command_is_listed() -> None:
    for module in COMMANDS:
        assert f"`rvc-fast {module.__name__.rsplit('.', 1)[1]}" in README


def test_options_in_the_readme_exist() -> None:
    actions = parser()._subparsers._group_actions[0]
    assert isinstance(actions, argparse._SubParsersAction)
    known = {o for sub in actions.choices.values() for a in sub._actions for o in a.option_strings}
    for line in re.findall(r"^.*rvc-fast (?:convert|pack|verify|models|demo|info|bench) .*$", README, re.M):
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", line.split("#")[0].split("rvc-fast", 1)[1]):
            assert option in known, line
