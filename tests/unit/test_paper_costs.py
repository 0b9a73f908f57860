"""The benchmark of the paper's systems: what it runs, skips and tells; nothing is timed here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.benchmarks import costs
from tests.builders import NAMES, denoiser, measured
from tstitch_cli.app import app
from tstitch_cli.documents import write_profile
from tstitch_cli.quantities import shown_bytes
from tstitch_cli.schema import Profile
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo

SD = ("bk-sdm-tiny", "sd14")
FREE = 10 * 2**30


def of_sd() -> Profile:
    made = measured(step_s=(0.04, 0.07))
    named = tuple(denoiser(name, s, flops=s * 1e12) for name, s in zip(SD, (0.04, 0.07), strict=True))
    assert made.fingerprint is not None
    here = replace(made.fingerprint, weights=dict.fromkeys(SD, "random"))
    return replace(made, denoisers=named, validation=(), fingerprint=here)


def test_the_systems_are_the_papers_in_its_settings() -> None:
    entries = Zoo.shipped().entries
    usual = {
        "sd14": (50, "pndm", 7.5, 512, 1),
        "dit-xl-256": (100, "ddim", 1.5, 256, 8),
        "ldm-256": (100, "ddim", 3.0, 256, 8),
        "sdxl": (50, "euler", 5.0, 1024, 1),
        "lcm-sdxl": (4, "lcm", 8.0, 1024, 1),
        "u-vit-h-256": (50, "dpm++", 1.5, 256, 8),
    }
    assert set(usual) == {names[-1] for names in costs.SYSTEMS}
    for names in costs.SYSTEMS:
        system = [entries[name] for name in names]
        check(system)
        assert all(entry.architecture is not None for entry in system)
        sizes = [entry.parameters or 0 for entry in system]
        d = system[-1].defaults
        assert (d.steps, d.scheduler, d.guidance, d.size, d.batch_size) == usual[names[-1]]
        assert sizes == sorted(sizes)
    assert set(costs.PAPER) <= {(small, names[-1]) for names in costs.SYSTEMS for small in names[:-1]}


def test_what_is_run_is_a_command_of_tstitch(tmp_path: Path) -> None:
    """Read to its end, where a device that is not here is refused."""
    for steps in (None, 4):
        typed = costs.command(SD, tmp_path / "x.yaml", "abacus", "1s", steps)
        assert ("--steps" in typed) == (steps is not None)
        done = CliRunner().invoke(app, typed)
        assert "abacus" in done.stderr
        assert "No such option" not in done.output


def test_what_is_there_is_kept_what_fails_is_told_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "room", lambda device: FREE)
    write_profile(of_sd(), tmp_path / "bk-sdm-tiny-sd14-random.yaml", overwrite=False)
    ran: list[list[str]] = []

    def profiling(typed: list[str]) -> str | None:
        ran.append(typed[1:3])
        if "ldm-256" in typed:
            return "out of memory"
        write_profile(measured(), Path(typed[typed.index("--out") + 1]), overwrite=False)
        return None

    systems = (SD, ("ldm-s-256", "ldm-256"), ("dit-s-256", "dit-xl-256"), ("ssd-1b", "sdxl"))
    found = list(costs.profiled(systems, tmp_path, "cpu", "1s", profiling=profiling))
    assert ran == [["ldm-s-256", "ldm-256"], ["dit-s-256", "dit-xl-256"]]
    assert [type(each) for each in found] == [Profile, str, Profile, str]
    assert found[1] == "ldm-s-256, ldm-256: out of memory"
    needed = 4 * (1331334404 + 2567463684)
    assert (
        found[3] == f"ssd-1b, sdxl: their weights take {shown_bytes(needed)} in float32, {shown_bytes(FREE)} are free"
    )


def test_a_process_that_fails_says_why() -> None:
    assert costs.run(["zoo"]) is None
    assert "two or more" in (costs.run(["profile", "fashion-s"]) or "")


def test_the_table_has_the_papers_ratio_beside_ours() -> None:
    (line,) = costs.rows(of_sd())
    # 20 steps, the first 1.5 times and the last 0.75 times as long as the others, and 30 ms besides.
    large, small = 20.25 * 0.07 + 0.03, 20.25 * 0.04 + 0.03
    assert line == (
        "`sd14` : `bk-sdm-tiny`",
        f"{large:.3g} : {small:.3g}",
        "0.8%",
        f"{large / small:.2f}",
        "1.75",
        "1.75",
        "1.70",
    )
    assert len(line) == len(costs.HEADER)
    assert [line[0] for line in costs.rows(measured())] == [f"`{NAMES[2]}` : `{small}`" for small in NAMES[1::-1]]
