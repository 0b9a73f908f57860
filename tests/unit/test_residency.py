"""`--offload` and `--vram`: resident where it fits, in turn where it does not, refused where neither does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.tiny import tiny
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import load
from tstitch_cli.errors import DeviceError, UsageError
from tstitch_cli.measuring.memory import PeakMemory
from tstitch_cli.savings import residency
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.entry import Entry, Noise
from tstitch_cli.zoo.preflight import check_setting
from tstitch_cli.zoo.registry import Zoo

ENTRIES = Zoo.load().entries
FASHION = [ENTRIES["fashion-s"], ENTRIES["fashion-xl"]]
SD = [ENTRIES["bk-sdm-tiny"], ENTRIES["sd14"]]
SETTING = Setting(50, "pndm", 7.5, 1, 512, "float16", "cuda")
GB = 10**9


def test_offloading_means_nothing_on_the_cpu() -> None:
    with pytest.raises(UsageError, match="--offload means nothing on the CPU"):
        check_setting(FASHION, Setting(20, "ddim", 1.5, 8, 32, "float32", "cpu", offload=True))
    with pytest.raises(UsageError, match="--vram means nothing on the CPU"):
        residency.check(replace(SETTING, device="cpu"), 6 * GB)
    with pytest.raises(UsageError, match="torch does not count the memory of mps"):
        residency.check(replace(SETTING, device="mps"), 6 * GB)
    for device in ("cuda", "cuda:1", "mps", "xpu"):
        residency.check(replace(SETTING, device=device, offload=True))


@pytest.mark.parametrize(("limit_gb", "offloaded"), [(6.0, False), (2.4, False), (2.3, True), (1.8, True)])
def test_weights_alone_decide_before_loading(limit_gb: float, offloaded: bool) -> None:
    """SD 1.4 has 859.5 million parameters, BK-SDM Tiny 323.4 million: 2.37 GB in float16 together."""
    assert residency.before_loading(SD, SETTING, int(limit_gb * GB)).offload is offloaded


def test_what_cannot_fit_is_refused_before_loading() -> None:
    with pytest.raises(DeviceError, match=r"weights of sd14 alone take 1\.72 GB in float16, --vram is 1\.50 GB"):
        residency.before_loading(SD, SETTING, int(1.5 * GB))
    unknown = [replace(entry, parameters=None) for entry in SD]
    assert residency.before_loading(unknown, SETTING, int(1.5 * GB)) == SETTING


def test_text_encoders_of_their_own_take_turns_too() -> None:
    own = replace(SETTING, embeddings="own")
    check_setting(SD, replace(own, offload=True))
    assert residency.before_loading(SD, own, 6 * GB) == own
    assert residency.before_loading(SD, own, 2 * GB) == replace(own, offload=True)


DRAWN = Setting(4, "ddim", 7.5, 2, 64, "float32", "cpu")


@pytest.mark.parametrize(
    "asked",
    [{}, {"strength": 0.6}, {"strength": 1.0, "inpaint": True}, {"strength": 0.5, "control": "owner/net"}],
    ids=str,
)
def test_the_peak_is_of_a_call_with_all_that_the_setting_wants(asked: dict[str, Any]) -> None:
    family = load([tiny("bk-sdm-tiny"), tiny("sd14")], replace(DRAWN, **asked), random_weights=True)
    calls: dict[str, int] = dict.fromkeys(family.denoisers, 0)
    for name, denoiser in family.denoisers.items():

        def count(module: Any, args: Any, name: str = name) -> None:
            calls[name] += 1

        denoiser.register_forward_pre_hook(count)
    peak = residency.peak_of(family)
    assert calls == {"bk-sdm-tiny": 2, "sd14": 2}
    known = PeakMemory(family.device).bytes()
    assert peak == 0 if known is None else 0 < peak <= known


def test_the_peak_is_of_every_denoiser_whatever_noise_it_knows() -> None:
    noisier = replace(tiny("bk-sdm-tiny"), noise=Noise("epsilon", "linear", 1e-4, 0.02))
    family = load([noisier, tiny("sd14")], replace(DRAWN, schedule=noisier.name), random_weights=True)
    with pytest.raises(UsageError, match="sd14 does not know the noise"):
        run(family, Batch(("a fox",), (0,)), "sd14", HostClock())
    assert residency.peak_of(family) >= 0


def loader(resident: int | None, in_turn: int | None) -> tuple[Any, Any, list[bool]]:
    """Ways to load and to measure, with these peaks; None runs out of memory."""
    tried: list[bool] = []

    def load(entries: Sequence[Entry], setting: Setting) -> Any:
        tried.append(setting.offload)
        return SimpleNamespace(setting=setting)

    def peak_of(family: Any) -> int:
        peak = in_turn if family.setting.offload else resident
        if peak is None:
            raise DeviceError("cuda ran out of memory")
        return peak

    return load, peak_of, tried


@pytest.mark.parametrize(
    ("resident", "in_turn", "tried", "peak"),
    [
        (5 * GB, 3 * GB, [False], 5 * GB),
        (7 * GB, 3 * GB, [False, True], 3 * GB),
        (None, 3 * GB, [False, True], 3 * GB),
    ],
)
def test_resident_where_it_fits_else_in_turn(resident: int | None, in_turn: int, tried: list[bool], peak: int) -> None:
    load, peak_of, seen = loader(resident, in_turn)
    family, most = residency.load_within(SD, SETTING, 6 * GB, load, peak_of)
    assert (seen, most, family.setting.offload) == (tried, peak, tried[-1])


def test_what_was_offloaded_from_the_start_is_not_tried_resident() -> None:
    load, peak_of, seen = loader(5 * GB, 3 * GB)
    residency.load_within(SD, replace(SETTING, offload=True), 6 * GB, load, peak_of)
    assert seen == [True]


def test_what_fits_in_no_way_says_what_it_needs() -> None:
    load, peak_of, _ = loader(9 * GB, 7 * GB)
    with pytest.raises(DeviceError, match=r"still takes 7\.00 GB, --vram is 6\.00 GB"):
        residency.load_within(SD, SETTING, 6 * GB, load, peak_of)
    load, peak_of, _ = loader(9 * GB, None)
    with pytest.raises(DeviceError, match="ran out of memory"):
        residency.load_within(SD, SETTING, 6 * GB, load, peak_of)


MEGABYTE = 1 << 20
TOLERANCE = 0.1  # of what the C library's allocator keeps or rounds up
RESIDENT = """
import torch
from diffusers import DiTTransformer2DModel
from tests import toys
from tstitch_cli.measuring.memory import PeakMemory
from tstitch_cli.stitching import planned_evaluations, stitch

def dit(depth):
    # Most of the weights are rows for classes, 51 MB a block, which cost no time.
    with torch.device("meta"):
        made = DiTTransformer2DModel(sample_size=32, patch_size=2, in_channels=4, out_channels=4, num_layers=depth,
                                     num_attention_heads=4, attention_head_dim=64, num_embeds_ada_norm=50_000)
    made = made.to_empty(device="cpu").eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    made.pos_embed.pos_embed.zero_()
    return made

def draw(denoisers, turns):
    pipeline = toys.class_pipeline(denoisers["large"])
    stitched = stitch(pipeline, "transformer", denoisers, "large")
    stitched.follow(turns, lambda: planned_evaluations(pipeline))
    with torch.inference_mode():
        pipeline([1] * 8, num_inference_steps=2, guidance_scale=1.5, output_type="latent")

draw({"large": toys.tiny_dit(1)}, "large")  # what is imported late is there before
peak = PeakMemory(torch.device("cpu"))
before = peak.bytes()
large = dit(4)
draw({"large": large}, "large")
alone = peak.bytes() - before
small = dit(2)
draw({"small": small, "large": large}, ("small", "large"))
print(alone, peak.bytes() - before, *(sum(p.nbytes for p in each.parameters()) for each in (small, large)))
"""


@pytest.mark.skipif(PeakMemory(torch.device("cpu")).bytes() is None, reason="the system does not tell the peak")
def test_small_and_large_cost_the_weights_of_both_and_the_activations_of_the_larger() -> None:
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    alone, both, small, large = map(int, done.stdout.split()[-4:])
    activations = alone - large
    assert min(small, activations) > 40 * MEGABYTE  # of a size that the tolerance does not hide
    assert small + large < both <= (small + large + activations) * (1 + TOLERANCE)
