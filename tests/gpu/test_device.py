"""On a machine with an accelerator: device clocks, peak memory, and the same path as on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.toys import FakeClock, family
from tstitch_cli.clocks import EventClock, clock_for
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device
from tstitch_cli.errors import DeviceError
from tstitch_cli.measuring.memory import PeakMemory
from tstitch_cli.profile import Effort, measure
from tstitch_cli.savings.residency import load_within, peak_of
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


def on_cuda(*, offload: bool) -> Family:
    if resolve_device("auto") != "cuda":
        pytest.skip("only CUDA and ROCm count their memory")
    zoo = Zoo.load()
    setting = Setting(10, "ddim", 1.5, 2, 32, "float32", "cuda", offload=offload)
    return load([zoo.resolve(name) for name in ("fashion-s", "fashion-xl")], setting)


def weights_of(part: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))


def test_small_and_large_resident_cost_the_weights_of_both_and_the_activations_of_the_larger() -> None:
    loaded = on_cuda(offload=False)
    clock = clock_for(loaded.device)
    run(loaded, BATCH, "fashion-xl", clock)
    peaks = {}
    for name, turns in (("alone", "fashion-xl"), ("stitched", ("fashion-s",) * 5 + ("fashion-xl",) * 5)):
        peak = PeakMemory(loaded.device)
        run(loaded, BATCH, turns, clock)
        peaks[name] = peak.bytes() or 0
    # Both are resident in either call, so nothing is added by the smaller one's turn.
    assert peaks["stitched"] <= peaks["alone"]
    small = loaded.denoisers.pop("fashion-s")
    weights = weights_of(small)
    before = torch.cuda.memory_allocated()
    small.to("cpu")
    assert before - torch.cuda.memory_allocated() == pytest.approx(weights, rel=0.05)  # blocks of 512 bytes


def test_offloaded_parts_take_turns_and_the_picture_is_the_same() -> None:
    clock = clock_for(torch.device("cuda"))
    turns = ("fashion-s",) * 5 + ("fashion-xl",) * 5
    expected = run(on_cuda(offload=False), BATCH, turns, clock).images
    torch.cuda.empty_cache()
    loaded = on_cuda(offload=True)
    drawn = run(loaded, BATCH, turns, clock)
    assert [image.tobytes() for image in drawn.images] == [image.tobytes() for image in expected]
    assert drawn.realised == turns
    # The autoencoder had the last turn; both denoisers wait, pinned.
    for denoiser in loaded.denoisers.values():
        assert all(p.device.type == "cpu" and p.is_pinned() for p in denoiser.parameters())
    assert all(p.device.type == "cuda" for p in loaded.pipeline.vae.parameters())


def test_vram_is_held_by_offloading() -> None:
    zoo = Zoo.load()
    resident = on_cuda(offload=False)
    setting, entries = resident.setting, [zoo.resolve(name) for name in ("fashion-s", "fashion-xl")]
    most = peak_of(resident)
    del resident
    torch.cuda.empty_cache()
    assert not load_within(entries, setting, most, load, peak_of)[0].setting.offload
    family, peak = load_within(entries, setting, most - 1_000_000, load, peak_of)
    assert family.setting.offload
    assert peak < most - 1_000_000
    with pytest.raises(DeviceError, match="one part at a time still takes"):
        load_within(entries, setting, peak // 2, load, peak_of)
