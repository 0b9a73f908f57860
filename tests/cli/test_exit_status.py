"""What the shell is told: every exit status that a user can reach, through the commands as they are typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.builders import measured
from tests.unit.test_provenance import MADE
from tstitch_cli.app import app
from tstitch_cli.documents import write_plan, write_profile
from tstitch_cli.errors import ExitStatus, TstitchError
from tstitch_cli.images import save_picture
from tstitch_cli.measuring.imported import from_times
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Fingerprint, PlannedDenoiser

ROOT = Path(__file__).parents[2]
BUNDLED = ("fashion-s", "fashion-xl")
ELSEWHERE = {ExitStatus.PARTIAL}
"""Tested in test_batches.py."""
CASES: list[tuple[ExitStatus, str, str]] = [
    (ExitStatus.OK, "--help", "Draw diffusion pictures"),
    (ExitStatus.OK, "zoo --json", '"fashion-s"'),
    (ExitStatus.OK, "plan --budget 60% --out new.yaml", "chosen"),
    (ExitStatus.USAGE, "", "Usage"),
    (ExitStatus.USAGE, "plann", "plann"),
    (ExitStatus.USAGE, "plan --bugdet 2s", "--bugdet"),
    (ExitStatus.USAGE, "profile fashion-s fashionxl", "fashion-xl"),
    (ExitStatus.USAGE, "profile fashion-s", "two or more"),
    (ExitStatus.USAGE, "profile fashion-s fashion-s", "given twice"),
    (ExitStatus.USAGE, "profile fashion-s sd14", "no latent space"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --scheduler dddim", "ddim"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --dtype float12 --device cpu", "float16"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --steps 0", "--steps"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --tolerance -1", "share"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --max-time soon", "2.5s"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --device cpu --accelerate deepcash", "deepcache"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --device cpu --accelerate deepcache", "fbcache"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --device cpu --offload", "on the CPU"),
    (ExitStatus.USAGE, "profile fashion-s fashion-xl --device cpu --vram 6GB", "on the CPU"),
    (ExitStatus.USAGE, "profile --from-times a=1s b=3s --steps 10 --offload", "measures nothing"),
    (ExitStatus.USAGE, "profile --from-times a=1s b=3s", "--steps"),
    (ExitStatus.USAGE, "profile --from-times a=1s b --steps 10", "dit-s=1.6s"),
    (ExitStatus.USAGE, "plan --budget 0", "above 0"),
    (ExitStatus.USAGE, "plan --budget soon", "60%"),
    (ExitStatus.USAGE, "sample", "--prompt"),
    (ExitStatus.USAGE, "sample --prompt boot --row 66", "0 to 65"),
    (ExitStatus.USAGE, "sample --prompt boot", "only a name with a time"),
    (ExitStatus.USAGE, "sample --plan fashion.yaml --prompt boots", "ankle boot"),
    (ExitStatus.USAGE, "sample --plan fashion.yaml --prompt bag --negative-prompt dress", "--negative-prompt"),
    (ExitStatus.BAD_FILE, "plan --budget 60% --out new.yaml --profile malformed.yaml", "malformed.yaml:1:9"),
    (ExitStatus.BAD_FILE, "plan --budget 60%", "--overwrite"),
    (ExitStatus.USAGE, "verify", "only a name with a time"),
    (ExitStatus.USAGE, "verify fashion.yaml --row 66", "0 to "),
    (ExitStatus.BAD_FILE, "verify malformed.yaml", "malformed.yaml:2:7"),
    (ExitStatus.BAD_FILE, "sample --plan malformed.yaml --prompt bag", "malformed.yaml:2:7"),
    (ExitStatus.BAD_FILE, "sample --plan noise.yaml --prompt bag", "UTF-8"),
    (ExitStatus.BAD_FILE, "sample --plan profiles --prompt bag", "cannot be read"),
    (ExitStatus.BAD_FILE, "sample --plan none.yaml --prompt bag", "no such file"),
    (ExitStatus.BAD_FILE, "sample --prompts-file noise.yaml", "noise.yaml: is not UTF-8 text"),
    (ExitStatus.BAD_FILE, "sample --plan fashion.yaml --prompt bag --out full", "000000.png: exists already"),
    (ExitStatus.BAD_FILE, "show noise.yaml", "noise.yaml"),
    (ExitStatus.INFEASIBLE, "plan --budget 1ms --out new.yaml", "smallest possible"),
    (ExitStatus.STALE, "sample --plan fashion.yaml --prompt bag", "device was an abacus"),
    (ExitStatus.STALE, "verify fashion.yaml", "device was an abacus"),
    (ExitStatus.STALE, "sample --from elsewhere.png", "weights of fashion-s were"),
    (ExitStatus.DEVICE, "profile fashion-s fashion-xl --device toaster", "no device"),
    (ExitStatus.DEVICE, "profile fashion-s fashion-xl --device {absent}", "there is no {absent} here"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a profile, plans and pictures to go wrong with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for name in ("TSTITCH_ZOO", "TSTITCH_TRACEBACK", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    times = from_times({"small": 1.0, "base": 2.0, "large": 3.0}, 20)
    write_profile(times, Path("profiles/times.yaml"), overwrite=False)
    write_plan(make_plan(times, budget=parse_budget("60%")), Path("plan.yaml"), overwrite=False)
    _plan_of_bundled(Path("fashion.yaml"))
    Path("malformed.yaml").write_text("schema: tstitch/plan/1\nrows: 3\n")
    Path("noise.yaml").write_bytes(bytes(range(256)))
    made = replace(
        MADE,
        denoisers=tuple(PlannedDenoiser(name, f"bundled:fashion/{name}", None) for name in BUNDLED),
        allocation=((BUNDLED[0], MADE.setting.steps),),
        weights=dict.fromkeys(BUNDLED, "0" * 16),
    )
    for path in (Path("elsewhere.png"), Path("full/000000.png")):
        save_picture(path, Image.new("L", (8, 8)), made, overwrite=False)
    return tmp_path


def _plan_of_bundled(path: Path) -> None:
    """A plan for two bundled denoisers, made on a machine that is not this one."""
    profile = measured(step_s=(0.01, 0.1))
    named = tuple(
        replace(denoiser, name=name, source=f"bundled:fashion/{name}")
        for denoiser, name in zip(profile.denoisers, BUNDLED, strict=True)
    )
    elsewhere = Fingerprint("an abacus", "beads", "1.0", "0.1", 1, dict.fromkeys(BUNDLED, "0" * 16))
    profile = replace(profile, denoisers=named, validation=(), fingerprint=elsewhere)
    write_plan(make_plan(profile, budget=parse_budget("50%")), path, overwrite=False)


def tstitch(arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def absent() -> str:
    """A kind of device that torch knows and this machine has not."""
    import torch

    here = torch.accelerator.current_accelerator(check_available=True)
    return "mps" if here is not None and here.type == "cuda" else "cuda"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said(result: Result) -> str:
    """All that was printed, without the colours and line breaks of a terminal's width."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", result.output)
    return " ".join(plain.replace("│", " ").split())


@pytest.mark.parametrize(("status", "arguments", "told"), CASES)
def test_status_and_what_is_said(folder: Path, status: ExitStatus, arguments: str, told: str) -> None:
    before = contents(folder)
    if "{absent}" in arguments:
        arguments, told = arguments.format(absent=absent()), told.format(absent=absent())
    result = tstitch(arguments)
    assert result.exit_code == status, result.output
    assert told in said(result)
    assert "Traceback" not in result.output
    if status != ExitStatus.OK:
        assert contents(folder) == before
        assert result.stdout == "" or status == ExitStatus.USAGE


BROKEN = """
import os, signal, time
import tstitch_cli.plan
from tstitch_cli.app import main

def stage(*args, **kwargs):
    WHAT

tstitch_cli.plan.make_plan = stage
# A shell may have started this process with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""Python that runs `tstitch plan`, its stage replaced by one that does WHAT."""


def run(what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BROKEN.replace("WHAT", what), "plan", "--budget", "60%", "--out", "new.yaml"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bug_of_ours_is_said_to_be_one() -> None:
    done = run("raise RuntimeError('wires crossed')")
    assert done.returncode == ExitStatus.BUG
    assert "RuntimeError: wires crossed" in done.stderr
    assert "TSTITCH_TRACEBACK=1" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not Path("new.yaml").exists()


def test_a_bugs_traceback_is_shown_to_who_asks_for_it() -> None:
    done = run("raise RuntimeError('wires crossed')", TSTITCH_TRACEBACK="1")
    assert done.returncode == ExitStatus.BUG
    assert "Traceback" in done.stderr
    assert "in stage" in done.stderr


def test_ctrl_c(folder: Path) -> None:
    before = contents(folder)
    done = run("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    assert done.returncode == ExitStatus.INTERRUPTED
    assert done.stderr.strip() == "interrupted"
    assert contents(folder) == before


def test_every_status_has_a_test() -> None:
    tested = {status for status, _, _ in CASES} | {ExitStatus.BUG, ExitStatus.INTERRUPTED} | ELSEWHERE
    tested |= {ExitStatus.VERIFICATION}  # which tells its result on stdout: tests/cli/test_verify.py
    assert tested == set(ExitStatus)


def test_no_failure_ends_with_a_status_that_is_kept() -> None:
    ends = {failure.status for failure in TstitchError.__subclasses__()}
    assert ends <= {status for status, _, _ in CASES} | ELSEWHERE
