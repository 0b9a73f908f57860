"""`tstitch plan` as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.builders import measured
from tstitch_cli.app import app
from tstitch_cli.documents import digest, plain, read_plan, write_profile
from tstitch_cli.errors import ExitStatus
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.schema import PLAN_SCHEMA


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_profile(measured(), Path("profiles/toys.yaml"), overwrite=False)
    return tmp_path


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_table_on_stdout_talk_on_stderr_and_a_plan_that_reads() -> None:
    result = plan("--budget", "50%", "--top", "2", "--increment", "0.1")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if (line.strip() and "yes" in line) or " no " in line]
    assert len(rows) == 66
    chosen = [row for row in rows if row[0] == ">"]
    made = read_plan(Path("plan.yaml"))
    assert [row[1] for row in chosen] == [str(made.chosen)]
    assert made.profile == "profiles/toys.yaml"
    assert made.profile_digest == digest(Path("profiles/toys.yaml"))
    assert len(made.alternatives) == 2
    other = f"row {made.alternatives[1]}"
    for said in ("profiles/toys.yaml", "sought: most compute", "66 combinations", "chosen:", other,
                 "text encoding, all steps, switching, decoding and writing", "Loading and warm-up are not in it",
                 "tstitch sample --plan plan.yaml --prompt"):  # fmt: skip
        assert said in result.stderr
        assert said not in result.stdout


def test_json_is_the_plan_and_nothing_else() -> None:
    result = plan("--budget", "1.5x", "--json")
    assert json.loads(result.stdout) == {"schema": PLAN_SCHEMA, **plain(read_plan(Path("plan.yaml")))}


def test_a_plan_elsewhere_points_back_at_the_profile() -> None:
    assert plan("--budget", "50%", "--out", "out/deep/p.yaml").exit_code == 0
    assert read_plan(Path("out/deep/p.yaml")).profile == "../../profiles/toys.yaml"


def test_quantile_increment_and_plot() -> None:
    result = plan("--budget", "1s", "--quantile", "mean", "--increment", "0.05", "--plot", "p.png")
    assert result.exit_code == 0, result.stderr
    made = read_plan(Path("plan.yaml"))
    assert (made.budget.quantile, made.combinations) == (None, 231)
    assert made.rows[made.chosen].time_s.mean <= 1
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    # A long table is cut down to what matters.
    assert len(result.stdout.splitlines()) < 40
    assert "of 231 rows" in result.stderr
    assert "p90 s" in plan("--budget", "2s", "--quantile", "0.9", "--overwrite").stdout


def test_the_newest_profile_serves_and_a_reference_only_when_named() -> None:
    write_profile(from_times({"a": 1.0, "b": 3.0}, 10), Path("profiles/times.yaml"), overwrite=False)
    assert "profiles/times.yaml" in plan("--budget", "50%").stderr
    result = plan("--budget", "10s", "--profile", "rtx3090-dit-ddim100", "--overwrite")
    assert "reference" in result.stderr
    assert [d.name for d in read_plan(Path("plan.yaml")).denoisers] == ["dit-s", "dit-b", "dit-xl"]
    assert "toys" in plan("--budget", "50%", "--profile", "toys", "--overwrite").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--budget", "0"], ExitStatus.USAGE, "above 0"),
        (["--budget", "-2s"], ExitStatus.USAGE, "above 0"),
        (["--budget", "1e9"], ExitStatus.USAGE, "absurd"),
        (["--budget", "soon"], ExitStatus.USAGE, "1.5x"),
        (["--budget", "[red]"], ExitStatus.USAGE, "[red]"),
        (["--budget", "50%", "--increment", "0.3"], ExitStatus.USAGE, "does not divide 1"),
        (["--budget", "50%", "--quantile", "95"], ExitStatus.USAGE, "0.5 to 0.99"),
        (["--budget", "50%", "--quantile", "most"], ExitStatus.USAGE, "0.5 to 0.99"),
        (["--budget", "50%", "--top", "0"], ExitStatus.USAGE, "--top"),
        (["--budget", "50%", "--profile", "toy"], ExitStatus.USAGE, "toys"),
        (["--budget", "50%", "--profile", "none.yaml"], ExitStatus.BAD_FILE, "no such file"),
        (["--budget", "50%", "--profile", "foreign.yaml"], ExitStatus.BAD_FILE, "foreign.yaml:1:1"),
        (["--budget", "50%", "--out", "profiles"], ExitStatus.BAD_FILE, "folder"),
        (["--budget", "50%", "--out", "foreign.yaml/p.yaml"], ExitStatus.BAD_FILE, "cannot be written"),
        (["--budget", "50%", "--out", "foreign.yaml"], ExitStatus.BAD_FILE, "--overwrite"),
        (["--budget", "50%", "--plot", "foreign.yaml"], ExitStatus.BAD_FILE, "--overwrite"),
        (["--budget", "1ms"], ExitStatus.INFEASIBLE, "smallest possible"),
        ([], ExitStatus.USAGE, "--budget"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], status: ExitStatus, said: str) -> None:
    Path("foreign.yaml").write_text("name: something else\n")
    before = sorted(folder.rglob("*"))
    result = plan(*arguments)
    assert result.exit_code == status
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert sorted(folder.rglob("*")) == before
    assert Path("foreign.yaml").read_text() == "name: something else\n"


def test_no_profile_at_all() -> None:
    Path("profiles/toys.yaml").unlink()
    result = plan("--budget", "50%")
    assert result.exit_code == ExitStatus.BAD_FILE
    assert "tstitch profile" in result.stderr


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tstitch_cli.app import app; app(['plan', '--budget', '50%'], standalone_mode=False); "
        "heavy = {'torch', 'diffusers', 'transformers', 'matplotlib', 'huggingface_hub', 'PIL'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
