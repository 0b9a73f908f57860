"""The analysis of trajectories: rings of frequency, when they settle, and what is drawn and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests import toys
from tests.builders import measured
from tstitch_cli import documents
from tstitch_cli.analyze import Analysis, Spectrum, _Rings, _spectrum, analyze
from tstitch_cli.app import app
from tstitch_cli.commands.analyze import _agreement, _concluded
from tstitch_cli.errors import BadFileError, ExitStatus, UsageError
from tstitch_cli.measuring import agreement
from tstitch_cli.plan import make_plan
from tstitch_cli.plotting.analysis_plots import frequencies_png, similarity_png
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Agreement, Closeness
from tstitch_cli.trajectory import Batch, noise_generator


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyze(toys.family(toys.FakeClock(), {"small": 0.0, "large": 0.0}, steps=5), pictures=3)


def test_white_noise_has_a_logarithm_of_zero_in_every_ring() -> None:
    noise = torch.randn(2, 400, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = _spectrum(noise, _Rings((8, 8)))
    assert np.shape(spectrum.log_amplitude) == (2, 5)
    assert np.abs(spectrum.log_amplitude).max() < 0.02
    assert np.abs(spectrum.coherence[0]).max() < 0.06
    assert spectrum.coherence[1] == pytest.approx((1.0,) * 5)


def test_what_follows_from_the_similarity() -> None:
    def of(*cosine: float) -> Closeness:
        return Closeness(cosine, (0.0,) * len(cosine), rms=((0.0,) * len(cosine),))

    found = Agreement("l", (1.0,) * 5, {"s": of(1.0, 0.995, 0.99, 0.98, 0.995), "m": of(*[1.0] * 5), "x": of(0.5, 1.0)})
    small, middle, other = _concluded(found)
    assert (
        small == "s and l predict alike (cosine of at least 0.99) for the first 3 of 5 steps: about 60% are s's to take"
    )
    assert "for all 5 steps: about 100% are m's" in middle
    assert "not even in the first step" in other


@pytest.mark.parametrize("cycles", [0, 1, 3, 4])
def test_a_wave_is_in_the_ring_of_its_frequency(cycles: int) -> None:
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(8, dtype=torch.float64) / 8).expand(1, 1, 1, 8, 8)
    rings = _Rings((8, 8))
    amplitudes = np.array(_spectrum(wave + 1e-9 * torch.randn(wave.shape).double(), rings).log_amplitude[0])
    assert rings.frequencies[amplitudes.argmax()] == cycles / 8
    assert np.delete(amplitudes, cycles).max() < amplitudes.max() - 6


def test_rings_of_a_picture_that_is_no_square() -> None:
    rings = _Rings((8, 16))
    assert rings.number.shape == (8, 16)
    assert rings.frequencies == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    assert (rings.number[0, 2], rings.number[1, 0]) == (1, 1)


def test_a_frequency_is_settled_when_it_stays_near_the_end() -> None:
    coherence = ((0.1, 0.95, 1.0), (0.95, 0.2, 1.0), (0.5, 0.91, 1.0), (1.0, 1.0, 1.0))
    assert Spectrum(coherence, coherence).settled() == (3, 2, 0)


def test_latents_that_are_sequences_are_refused() -> None:
    with pytest.raises(UsageError, match="sequence"):
        _spectrum(torch.zeros(2, 3, 16, 64), _Rings((16, 64)))


def test_every_denoiser_starts_from_the_same_noise_and_ends_where_a_plain_run_does(found: Analysis) -> None:
    small, large = found.spectra["small"], found.spectra["large"]
    assert small.log_amplitude[0] == large.log_amplitude[0]
    assert small.log_amplitude[-1] != large.log_amplitude[-1]
    assert np.shape(small.log_amplitude) == (6, len(found.frequencies))
    family = toys.family(toys.FakeClock(), {"small": 0.0, "large": 0.0}, steps=5)
    family.stitched.follow("small", lambda: 5)
    noise = [noise_generator(0, index) for index in range(3)]
    plain = family.pipeline([0, 1, 2], num_inference_steps=5, generator=noise, output_type="latent").images
    last = _spectrum(plain.double()[None], _Rings((8, 8)))
    assert last.log_amplitude[0] == pytest.approx(small.log_amplitude[-1], abs=1e-4)


def test_agreement_is_the_profiles_or_measured_alike(found: Analysis) -> None:
    family = toys.family(toys.FakeClock(), {"small": 0.0, "large": 0.0}, steps=5)
    assert found.agreement is not None
    assert len(found.agreement.denoisers["small"].rms) == 3
    batches = [Batch(("0", "1"), (0, 1)), Batch(("2",), (2,))]
    assert found.agreement == agreement.measure(family, batches, (1,) * 5)
    known = analyze(family, 2, known=found.agreement)
    assert known.agreement is found.agreement
    assert "step" not in vars(family.pipeline.scheduler)


def test_schedulers_that_evaluate_twice_a_step_count_steps() -> None:
    found = analyze(toys.family(toys.FakeClock(), {"small": 0.0, "large": 0.0}, scheduler="heun", steps=4), 2)
    assert np.shape(found.spectra["large"].log_amplitude) == (5, 5)


def test_the_pictures(found: Analysis, tmp_path: Path) -> None:
    assert found.agreement is not None
    similarity_png(found.agreement, "a setting", tmp_path / "a.png")
    frequencies_png(found, tmp_path / "b.png")
    frequencies_png(found, tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    for name in "ab":
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 10
    with pytest.raises(BadFileError, match="exists"):
        frequencies_png(found, tmp_path / "b.png")


def test_the_command_by_names(here: Path) -> None:
    asked = ["analyze", "fashion-b", "fashion-s", "--steps", "3", "--pictures", "2", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    numbers = json.loads((here / "analysis" / "analysis.json").read_text())
    assert json.loads(done.stdout) == numbers
    assert numbers["schema"] == "tstitch/analysis/1"
    assert list(numbers["spectra"]) == ["fashion-s", "fashion-b"]
    assert numbers["largest"] == "fashion-b"
    assert {path.name for path in (here / "analysis").iterdir()} == {
        "analysis.json",
        "similarity.png",
        "frequencies.png",
    }
    again = CliRunner().invoke(app, asked)
    assert (again.exit_code, "exists already" in again.stderr) == (ExitStatus.BAD_FILE, True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["fashion-s", "fashion-xl", "--plan", "plan.yaml"], "say two things"),
        (["--steps", "3"], "--steps mean nothing"),
        (["fashion-s"], "two"),
        (["fashion-s", "sd14"], ""),
    ],
)
def test_what_cannot_be_meant_is_refused(here: Path, asked: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["analyze", *asked])
    assert (done.exit_code, told in done.stderr) == (ExitStatus.USAGE, True), done.stderr


def test_agreement_is_read_from_the_plans_own_profile_and_no_other(here: Path, found: Analysis) -> None:
    profile = replace(measured(5, (0.01, 0.1)), agreement=found.agreement)
    documents.write_profile(profile, here / "p.yaml", overwrite=False)
    plan = make_plan(
        profile, budget=parse_budget("60%"), profile_path="p.yaml", digest=documents.digest(here / "p.yaml")
    )
    assert _agreement(plan, here) == found.agreement
    assert _agreement(plan, here / "elsewhere") is None
    documents.write_profile(replace(profile, notes="another"), here / "p.yaml", overwrite=True)
    assert _agreement(plan, here) is None
