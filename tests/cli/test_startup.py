"""The command line answers at once because nothing heavy is imported where nothing heavy is asked for."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BANNED = frozenset(PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])
RUN = """
import json, os, sys
from tstitch_cli.app import app
try:
    app(prog_name="tstitch")
finally:
    with open(os.environ["MODULES"], "w") as file:
        json.dump(sorted(sys.modules), file)
"""
PROFILE = ("profile", "--from-times", "dit-s=1.6s", "dit-b=4.0s", "dit-xl=16.5s", "--steps", "100")


@dataclass(frozen=True)
class Ran:
    """What a finished command said and which modules it had imported."""

    status: int
    stdout: str
    stderr: str
    modules: frozenset[str]

    @property
    def heavy(self) -> frozenset[str]:
        return BANNED & self.modules


def run(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ran:
    """`tstitch` with `arguments` in a process of its own, whose working folder is `folder`."""
    modules = folder / "modules.json"
    given = {"PYTHONPATH": str(ROOT), "MODULES": str(modules), "XDG_CONFIG_HOME": str(folder), **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr, frozenset(json.loads(modules.read_text())))


def completed(folder: Path, words: str) -> Ran:
    """What bash is told when Tab is pressed after `words`."""
    asked = {"_TSTITCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return run(folder, environment=asked)


def test_the_ban_names_what_is_slow_to_import() -> None:
    assert {"torch", "diffusers", "transformers", "matplotlib"} <= BANNED


COMMANDS = {
    "help": (["--help"], "Draw diffusion pictures within a time budget"),
    "help of the doctor": (["doctor", "--help"], "Look at versions"),
    "help of one": (["sample", "--help"], "Draw pictures by a plan"),
    "zoo": (["zoo"], "fashion-xl"),
    "import": (PROFILE, "dit-xl"),
    "plan": (["plan", "--budget", "60%"], "dit-xl"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Every command of COMMANDS, one after the other in one folder."""
    folder = tmp_path_factory.mktemp("startup")
    return {name: run(folder, *arguments) for name, (arguments, _) in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_heavy_for(ran: dict[str, Ran], name: str) -> None:
    assert (ran[name].status, COMMANDS[name][1] in ran[name].stdout) == (0, True), ran[name].stderr
    assert not ran[name].heavy


@pytest.mark.parametrize(("words", "offered"), [("tstitch pl", "plan"), ("tstitch sample --swe", "--sweep")])
def test_nothing_heavy_for_completion(tmp_path: Path, words: str, offered: str) -> None:
    ran = completed(tmp_path, words)
    assert offered in ran.stdout.split(), ran.stderr
    assert not ran.heavy


def test_the_watch_sees_a_heavy_import(tmp_path: Path) -> None:
    plotted = ("plan", "--budget", "60%", "--plot", "pareto.png")
    assert run(tmp_path, *PROFILE).status == 0
    assert run(tmp_path, *plotted).heavy == {"matplotlib"}


def test_no_module_of_the_command_line_the_planner_or_the_zoo_is_exempt_from_the_ban(ran: dict[str, Ran]) -> None:
    used = {module for each in ran.values() for module in each.modules}
    files = {ROOT / f"{name.replace('.', '/')}.py" for name in used if name.startswith("tstitch_cli.")}
    files = {path for path in files if path.is_file()}
    files |= {*ROOT.glob("tstitch_cli/commands/*.py"), *ROOT.glob("tstitch_cli/zoo/*.py"), ROOT / "tstitch_cli/app.py"}
    assert {"plan.py", "costs.py", "allocation.py", "documents.py", "registry.py"} <= {path.name for path in files}
    ignores = PYPROJECT["tool"]["ruff"]["lint"]["per-file-ignores"]
    exempt = [pattern for pattern, rules in ignores.items() if "TID253" in rules for pattern in _braces(pattern)]
    assert "tstitch_cli/denoisers.py" in exempt
    names = [path.relative_to(ROOT).as_posix() for path in sorted(files)]
    assert [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in exempt)] == []


@pytest.mark.parametrize("name", ["commands/profile.py", "plan.py", "zoo/registry.py", "schema.py"])
def test_ruff_refuses_a_heavy_import_at_module_level(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", f"tstitch_cli/{name}", "-"],
        input='"""A module."""\n\nimport torch\n\nprint(torch)\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "TID253" in done.stdout


def _braces(pattern: str) -> list[str]:
    """`a/{b,c}.py` as a/b.py and a/c.py."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inside, _, after = rest.partition("}")
    return [before + each + after for each in inside.split(",")]
