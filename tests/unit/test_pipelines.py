"""The matrix: every kind of pipeline under every scheduler it takes, stitched step by step and nothing else changed."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import pipelines
from tests.pipelines import KINDS, Kind
from tstitch_cli import evaluations, schedulers
from tstitch_cli.networks import task_pipelines
from tstitch_cli.stitching import StitchedDenoiser, planned_evaluations, stitch

STEPS = 4
MATRIX = [(kind, sampler, STEPS) for kind in KINDS.values() for sampler in kind.samplers]
MATRIX += [(KINDS[name], "lcm", 2) for name in ("sd", "xl", "lcm")]
CASES = [pytest.param(kind, sampler, steps, id=f"{kind.name}-{sampler}-{steps}") for kind, sampler, steps in MATRIX]


def spied(denoiser: nn.Module, name: str, calls: list[str]) -> nn.Module:
    """An eye-witness of its own: notes each real forward of a denoiser, whatever the stitched denoiser says."""
    denoiser.register_forward_hook(lambda module, args, output: calls.append(name))
    return denoiser


def plain(kind: Kind, denoiser: nn.Module, sampler: str) -> Any:
    pipeline = kind.make(denoiser)
    pipeline.scheduler = schedulers.build(sampler, pipeline.scheduler.config)
    return pipeline


def stitched(kind: Kind, denoisers: dict[str, nn.Module], sampler: str) -> tuple[Any, StitchedDenoiser]:
    pipeline = plain(kind, denoisers["large"], sampler)
    return pipeline, stitch(pipeline, kind.component, denoisers, "large")


@pytest.mark.parametrize(("kind", "sampler", "steps"), CASES)
def test_every_evaluation_is_made_by_whom_it_was_planned(kind: Kind, sampler: str, steps: int) -> None:
    calls: list[str] = []
    denoisers = {name: spied(kind.denoiser(seed), name, calls) for name, seed in (("small", 1), ("large", 2))}
    expected = {name: kind.draw(plain(kind, denoiser, sampler), steps) for name, denoiser in denoisers.items()}
    pipeline, switch = stitched(kind, denoisers, sampler)
    for name in denoisers:  # r = 1 and r = 0
        switch.follow(name, lambda: planned_evaluations(pipeline))
        calls.clear()
        assert torch.equal(kind.draw(pipeline, steps), expected[name])
        assert set(calls) == set(switch.realised) == {name}
    made = len(switch.realised)
    a_evaluation = len(calls) // made
    assert len(calls) == made * a_evaluation
    taken = round(steps * kind.given().get("strength", 1.0))
    assert sum(evaluations.per_step(pipeline.scheduler, taken, made)) == made
    half = made // 2
    for planned in (
        ("small",) * half + ("large",) * (made - half),
        ("large",) * half + ("small",) * (made - half),
        tuple(("small", "large")[i % 2] for i in range(made)),
    ):
        switch.follow(planned, lambda: planned_evaluations(pipeline))
        calls.clear()
        drawn = kind.draw(pipeline, steps)
        assert switch.realised == planned
        assert tuple(calls) == tuple(name for name in planned for _ in range(a_evaluation))
        assert drawn.isfinite().all()
        assert not torch.equal(drawn, expected["small"])
        assert not torch.equal(drawn, expected["large"])


def test_wan_switches_as_its_own_two_stage_pipeline_does() -> None:
    kind, steps = KINDS["wan"], 6
    denoisers = {"small": kind.denoiser(1), "large": kind.denoiser(2)}
    pipeline, switch = stitched(kind, denoisers, "flow-euler")
    own = pipelines.made(
        "WanPipeline",
        transformer=denoisers["small"],
        transformer_2=denoisers["large"],
        vae=pipeline.vae,
        scheduler=pipelines.flow_scheduler(),
        boundary_ratio=0.8,
    )
    expected = kind.draw(own, steps)
    early = int((own.scheduler.timesteps >= 800).sum())
    assert 0 < early < steps
    switch.follow(("small",) * early + ("large",) * (steps - early), lambda: planned_evaluations(pipeline))
    assert torch.equal(kind.draw(pipeline, steps), expected)


def both(kind: Kind) -> dict[str, nn.Module]:
    return {"small": kind.denoiser(1), "large": kind.denoiser(2)}


def halves(switch: StitchedDenoiser, pipeline: Any) -> None:
    switch.follow(("small",) * 2 + ("large",) * 2, lambda: planned_evaluations(pipeline))


def lora(seed: int, denoiser: Any, rank: int = 2) -> dict[str, torch.Tensor]:
    """LoRA weights for every attention projection of a U-Net, under the names that diffusers saves them by."""
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, module in denoiser.named_modules():
        if name.endswith(("to_q", "to_v")):
            down, up = (rank, module.in_features), (module.out_features, rank)
            weights[f"unet.{name}.lora_A.weight"] = torch.randn(down, generator=random)
            weights[f"unet.{name}.lora_B.weight"] = torch.randn(up, generator=random)
    return weights


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_lora_changes_the_large_denoiser_and_leaves_the_small_one_alone(name: str) -> None:
    pytest.importorskip("peft")
    kind = KINDS[name]
    weights = lora(3, kind.denoiser(2))
    with_lora = plain(kind, kind.denoiser(2), "ddim")
    with_lora.load_lora_weights(weights)
    expected = {
        "small": kind.draw(plain(kind, kind.denoiser(1), "ddim"), 3),
        "large": kind.draw(with_lora, 3),
    }
    assert not torch.equal(expected["large"], kind.draw(plain(kind, kind.denoiser(2), "ddim"), 3))
    pipeline, switch = stitched(kind, both(kind), "ddim")
    pipeline.load_lora_weights(weights)
    for only, drawn in expected.items():
        switch.follow(only, lambda: planned_evaluations(pipeline))
        assert torch.equal(kind.draw(pipeline, 3), drawn)


@pytest.mark.parametrize("name", ["sd", "xl-control", "wan", "sd3", "dit"])
def test_hooks_of_model_offload_change_nothing(name: str) -> None:
    """The CPU stands for the accelerator, so nothing really moves; the hooks are those of an accelerator."""
    kind = KINDS[name]
    sampler = kind.samplers[0]
    pipeline, switch = stitched(kind, both(kind), sampler)
    halves(switch, pipeline)
    expected = kind.draw(pipeline, 4)
    pipeline, switch = stitched(kind, both(kind), sampler)
    halves(switch, pipeline)
    pipeline.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert torch.equal(kind.draw(pipeline, 4), expected)
        assert switch.realised == ("small", "small", "large", "large")
    assert hasattr(switch, "_hf_hook")
    pipeline.remove_all_hooks()
    assert torch.equal(kind.draw(pipeline, 4), expected)


def test_attention_slicing_reaches_every_denoiser() -> None:
    kind = KINDS["sd"]
    denoisers = both(kind)
    pipeline, switch = stitched(kind, denoisers, "ddim")
    halves(switch, pipeline)
    expected = kind.draw(pipeline, 4)
    pipeline.enable_attention_slicing(1)
    sliced = [type(p).__name__ for d in denoisers.values() for p in d.attn_processors.values()]  # type: ignore[operator]
    assert all("Sliced" in name for name in sliced)
    assert torch.allclose(kind.draw(pipeline, 4), expected, atol=1e-4)


@pytest.mark.parametrize("way", ["tiling", "slicing"])
def test_tiled_and_sliced_decoding_is_what_plain_diffusers_does(way: str) -> None:
    kind = KINDS["sd"]
    alone = plain(kind, kind.denoiser(2), "ddim")
    pipeline, switch = stitched(kind, both(kind), "ddim")
    switch.follow("large", lambda: planned_evaluations(pipeline))
    for each in (alone, pipeline):
        getattr(each.vae, f"enable_{way}")()
    assert torch.equal(kind.draw(pipeline, 2, "pt"), kind.draw(alone, 2, "pt"))


class Compiler:
    """A backend that compiles nothing and counts how often it is asked to."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("name", ["sd", "wan"])
def test_each_denoiser_is_compiled_once_and_the_switch_never(name: str) -> None:
    kind = KINDS[name]
    sampler = kind.samplers[0]
    pipeline, switch = stitched(kind, both(kind), sampler)
    halves(switch, pipeline)
    expected = kind.draw(pipeline, 4)
    torch.compiler.reset()
    compiler = Compiler()
    switch.compile(backend=compiler)
    drawn = kind.draw(pipeline, 4)
    after_one = compiler.graphs
    assert after_one in (1, 2)  # torch lets equal architectures share one graph
    for planned in (("large", "small") * 2, ("small", "large", "large", "large")):
        switch.follow(planned, lambda: planned_evaluations(pipeline))
        kind.draw(pipeline, 4)
    assert compiler.graphs == after_one
    assert torch.allclose(drawn, expected, atol=1e-4)
    torch.compiler.reset()


def compiles() -> bool:
    """Whether this machine has what torch.compile needs for a CPU: a C++ compiler and Python's headers."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
    return compiler and Path(sysconfig.get_path("include"), "Python.h").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not compiles(), reason="torch.compile needs a C++ compiler and Python's headers")
def test_compiled_denoisers_draw_what_plain_diffusers_does_and_a_switch_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    kind = KINDS["dit"]
    denoisers = both(kind)
    eager = {name: kind.draw(plain(kind, denoiser, "ddim"), 4) for name, denoiser in denoisers.items()}
    torch.compiler.reset()
    task_pipelines.compile_each(tuple(denoisers.values()))
    compiled = {name: kind.draw(plain(kind, denoiser, "ddim"), 4) for name, denoiser in denoisers.items()}
    assert list(tmp_path.rglob("*.so"))
    pipeline, switch = stitched(kind, denoisers, "ddim")
    with torch.compiler.set_stance("fail_on_recompile"):
        for name in denoisers:
            switch.follow(name, lambda: planned_evaluations(pipeline))
            drawn = kind.draw(pipeline, 4)
            assert torch.equal(drawn, compiled[name])
            assert torch.allclose(drawn, eager[name], atol=1e-5)
        for planned in (("small", "small", "large", "large"), ("large", "small") * 2):
            switch.follow(planned, lambda: planned_evaluations(pipeline))
            drawn = kind.draw(pipeline, 4)
            assert switch.realised == planned
            assert not torch.allclose(drawn, eager["small"], atol=1e-3)
            assert not torch.allclose(drawn, eager["large"], atol=1e-3)
    torch.compiler.reset()
