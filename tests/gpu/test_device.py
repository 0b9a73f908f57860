"""On a machine with an accelerator: device clocks, peak memory, and the same path as on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.toys import FakeClock, family
from tstitch_cli.clocks import EventClock, clock_for
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device
from tstitch_cli.memory import PeakMemory
from tstitch_cli.profile import Effort, measure
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.registry import Zoo

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="torch sees no accelerator"),
]
BATCH = Batch(("bag", "dress"), (0, 1))


def on_device() -> Family:
    zoo = Zoo.load()
    setting = Setting(10, "ddim", 1.5, 2, 32, "float32", resolve_device("auto"))
    return load([zoo.resolve(name) for name in ("fashion-s", "fashion-xl")], setting)


def test_events_time_every_evaluation() -> None:
    loaded = on_device()
    clock = clock_for(loaded.device)
    assert isinstance(clock, EventClock)
    run(loaded, BATCH, "fashion-xl", clock)
    made = run(loaded, BATCH, "fashion-xl", clock)
    assert len(made.evaluations_s) == 10
    assert min(made.evaluations_s) > 0


def test_a_profile_is_measured_on_the_device() -> None:
    loaded = on_device()
    made = measure(loaded, BATCH, clock_for(loaded.device), Effort(max_time_s=20.0))
    assert made.setting.device == loaded.device.type
    assert all(denoiser.steady_s.mean > 0 for denoiser in made.denoisers)
    if loaded.device.type == "cuda":
        assert all(denoiser.peak_memory_bytes for denoiser in made.denoisers)


def test_peak_memory_is_the_devices_own() -> None:
    device = torch.device(resolve_device("auto"))
    if device.type != "cuda":
        pytest.skip("only CUDA and ROCm count their peak")
    peak = PeakMemory(device)
    block = torch.zeros(1 << 24, device=device)
    assert (peak.bytes() or 0) >= block.nbytes


def test_the_noise_is_that_of_the_cpu() -> None:
    clock = FakeClock()
    toy = family(clock, {"small": 1.0, "large": 2.0})
    expected = run(toy, BATCH, "large", clock).images
    device = torch.device(resolve_device("auto"))
    toy.pipeline.to(device)
    drawn = run(replace(toy, device=device), BATCH, "large", clock).images
    for a, b in zip(expected, drawn, strict=True):
        assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 8
