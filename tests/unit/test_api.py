"""The public names: what they are, that they cost nothing until used, and that the README's examples use them right."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import tstitch_cli

ROOT = Path(__file__).parents[2]
NAMES = [name for name in tstitch_cli.__all__ if name != "__version__"]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
PLAIN, PLANNING, RUNNING, PIPELINE = EXAMPLES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(tstitch_cli, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_names_are_sorted_and_listed() -> None:
    assert tstitch_cli.__all__ == sorted(tstitch_cli.__all__)
    assert set(tstitch_cli.__all__) <= set(dir(tstitch_cli))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(tstitch_cli.__file__).read_text(encoding="utf-8"))
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == {name: getattr(tstitch_cli, name).__module__ for name in NAMES}
    assert (Path(tstitch_cli.__file__).parent / "py.typed").is_file()


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="make_plans"):
        _ = tstitch_cli.make_plans  # type: ignore[attr-defined]
    assert not hasattr(tstitch_cli, "__wrapped__")


def test_the_version_is_the_projects() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        installed = version("tstitch")
    except PackageNotFoundError:
        assert not hasattr(tstitch_cli, "__version__")
    else:
        assert tstitch_cli.__version__ == installed == wanted


def test_importing_it_imports_nothing_heavy_and_neither_does_planning() -> None:
    code = "import sys, tstitch_cli\nassert 'numpy' not in sys.modules\n" + PLANNING
    code += "heavy = {'torch', 'diffusers', 'transformers', 'matplotlib', 'huggingface_hub'} & set(sys.modules)\n"
    code += "sys.exit(str(heavy) if heavy else 0)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_planning_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    made: dict[str, Any] = {}
    exec(compile(PLANNING, "README.md", "exec"), made)
    assert isinstance(made["plan"], tstitch_cli.Plan)
    assert made["row"].time_s.within <= 10
    assert "dit-xl" in capsys.readouterr().out


def test_diffusers_itself_draws_with_the_bundled_text_family() -> None:
    made: dict[str, Any] = {}
    # Fewer steps, for time.
    exec(compile(PLAIN.replace("num_inference_steps=50", "num_inference_steps=2"), "README.md", "exec"), made)
    assert made["picture"].size == (64, 64)


@pytest.mark.parametrize("example", [RUNNING, PIPELINE], ids=["measuring and drawing", "own pipeline"])
def test_the_other_examples_call_what_exists_as_it_is_declared(example: str) -> None:
    tree = ast.parse(example)
    known: dict[str, Any] = {}
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "README.md", "exec"), known)
    checked = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if name.partition(".")[0] not in known or name.startswith("diffusers."):
            continue
        function = eval(name, known)
        keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        inspect.signature(function).bind(*call.args, **keywords)
        checked.add(name)
    assert checked >= set(re.findall(r"\btstitch\.[\w.]+(?=\()", example))
    assert any(name.startswith("tstitch.") for name in checked)
