"""Accelerations inside a stitched denoiser: alone as without tstitch, and never across a switch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomesd
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import (
    AutoencoderKLWan,
    CacheMixin,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    Kandinsky5T2VPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.hooks import (
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
    apply_first_block_cache,
    apply_pyramid_attention_broadcast,
    apply_taylorseer_cache,
)
from torch import nn

from tests import pipelines, toys
from tests.unit.test_stitching import draw_class, draw_sd
from tstitch_cli import schedulers
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import UsageError
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.profile import Effort, measure
from tstitch_cli.savings import accelerations, caches
from tstitch_cli.savings.accelerations import is_full
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import StitchedDenoiser, planned_evaluations, stitch
from tstitch_cli.trajectory import Batch

STEPS = 10
SETTING = Setting(STEPS, "ddim", 1.5, 2, 16, "float32", "cpu")


def setting(asked: str) -> Setting:
    return replace(SETTING, accelerate=accelerations.parse(asked))


def tiny_flux(seed: int) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def tiny_wan(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=8,
        freq_dim=16,
        ffn_dim=16,
        num_layers=3,
        rope_max_seq_len=32,
    ).eval()


def flux_pipeline(transformer: nn.Module) -> Any:
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    scheduler = FlowMatchEulerDiscreteScheduler()
    return toys._quiet(FluxPipeline(transformer=transformer, vae=toys.tiny_vae(3), scheduler=scheduler, **parts))


def wan_pipeline(transformer: nn.Module) -> Any:
    torch.manual_seed(3)
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    return toys._quiet(
        WanPipeline(tokenizer=None, text_encoder=None, transformer=transformer, vae=vae, scheduler=scheduler)
    )


def draw_flux(pipeline: Any, steps: int) -> Any:
    generator = torch.Generator().manual_seed(5)
    return pipeline(
        prompt_embeds=torch.randn(1, 3, 8, generator=generator),
        pooled_prompt_embeds=torch.randn(1, 8, generator=generator),
        num_inference_steps=steps,
        height=16,
        width=16,
        generator=generator,
        output_type="latent",
    ).images.numpy()


def draw_wan(pipeline: Any, steps: int) -> Any:
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.randn(1, 3, 8, generator=generator)
    return pipeline(
        prompt_embeds=embeddings,
        negative_prompt_embeds=torch.zeros_like(embeddings),
        num_inference_steps=steps,
        num_frames=5,
        height=16,
        width=16,
        generator=generator,
        output_type="latent",
    ).frames.numpy()


def no_middle(seed: int) -> nn.Module:
    return toys.tiny_unet(seed, mid_block_type=None)


Kind = tuple[Callable[[nn.Module], Any], Callable[[int], nn.Module], str, Callable[[Any, int], Any]]


def other(name: str, denoiser: Callable[[int], nn.Module]) -> Kind:
    """A kind of tests/pipelines.py with another denoiser."""
    kind = pipelines.KINDS[name]
    return kind.make, denoiser, kind.component, lambda pipeline, steps: kind.draw(pipeline, steps).numpy()


KINDS: dict[str, Kind] = {
    "dit": (toys.class_pipeline, lambda seed: toys.tiny_dit(seed, depth=3), "transformer", draw_class),
    "sd": (toys.sd_pipeline, toys.tiny_unet, "unet", draw_sd),
    "bk-sdm": (toys.sd_pipeline, no_middle, "unet", draw_sd),
    "flux": (flux_pipeline, tiny_flux, "transformer", draw_flux),
    "wan": (wan_pipeline, tiny_wan, "transformer", draw_wan),
    "pixart": other("pixart", lambda seed: pipelines.pixart(seed, depth=3)),
    "cogvideox": other("cogvideox", lambda seed: pipelines.cogvideox(seed, depth=3)),
    "sana": other("sana", lambda seed: pipelines.sana(seed, depth=3)),
    "flux2": other("flux2", lambda seed: pipelines.flux2(seed, depth=3)),
    "kandinsky": other("kandinsky", lambda seed: pipelines.kandinsky(seed, depth=3)),
    "sd3": other("sd3", pipelines.sd3),
}


def stitched_pipeline(kind: str, asked: str) -> tuple[Any, StitchedDenoiser, dict[str, nn.Module]]:
    make, denoiser, component, _ = KINDS[kind]
    both = {"small": denoiser(1), "large": denoiser(2)}
    pipeline = make(both["large"])
    stitched = stitch(pipeline, component, both, "large")
    caches.accelerate(stitched, both, setting(asked))
    return pipeline, stitched, both


def draw(kind: str, pipeline: Any, stitched: StitchedDenoiser, allocation: Any) -> Any:
    stitched.follow(allocation, lambda: planned_evaluations(pipeline))
    return KINDS[kind][3](pipeline, STEPS)


# Each as its own documentation puts it into a pipeline that has never heard of tstitch.


def plain_deepcache(pipeline: Any) -> None:
    helper = DeepCacheSDHelper(pipe=pipeline)
    if pipeline.unet.mid_block is None:
        pipeline.unet.mid_block = caches._NoMiddle()
    helper.set_params(cache_interval=3, cache_branch_id=0)
    helper.enable()


def plain_tome(pipeline: Any) -> None:
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    tomesd.apply_patch(denoiser, ratio=0.5, max_downsample=2 if hasattr(pipeline, "transformer") else 1)
    denoiser._tome_info["args"]["generator"] = torch.Generator().manual_seed(caches.TOME_SEED)


def only_context(transformer: nn.Module) -> None:
    """What a caller of a pipeline without contexts has to do around every call."""
    plain = transformer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with CacheMixin.cache_context(transformer, "only"):
            return plain(*args, **kwargs)

    transformer.forward = forward


def contexts_in_turn(pipeline: Any) -> None:
    """What a caller of Kandinsky's pipeline has to do, which calls for prompt and guidance apart and names neither."""
    transformer = pipeline.transformer
    if not isinstance(pipeline, Kandinsky5T2VPipeline):
        return
    plain, calls = transformer.forward, list[None]()

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        with CacheMixin.cache_context(transformer, ("uncond", "cond")[len(calls) % 2]):
            return plain(*args, **kwargs)

    transformer.forward = forward


def plain_fbcache(pipeline: Any) -> None:
    config = FirstBlockCacheConfig(threshold=0.3)
    if isinstance(pipeline.transformer, CacheMixin):
        pipeline.transformer.enable_cache(config)
    else:
        apply_first_block_cache(pipeline.transformer, config)
        only_context(pipeline.transformer)


def plain_taylorseer(pipeline: Any) -> None:
    config = TaylorSeerCacheConfig(
        cache_interval=3,
        disable_cache_before_step=3,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=[r"(?!text).*blocks\.\d+"],
    )
    if isinstance(pipeline.transformer, CacheMixin):
        pipeline.transformer.enable_cache(config)
        contexts_in_turn(pipeline)
    else:
        apply_taylorseer_cache(pipeline.transformer, config)
        only_context(pipeline.transformer)


def broadcasting(transformer: nn.Module) -> nn.Module:
    """Attention every second evaluation, all of the first three: what diffusers takes for timesteps is counted."""
    calls: list[None] = []
    transformer.register_forward_hook(lambda module, args, output: calls.append(None))
    late = (2, STEPS + 1)
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=late,
        cross_attention_timestep_skip_range=late,
        current_timestep_callback=lambda: len(calls),
    )
    apply_pyramid_attention_broadcast(transformer, config)
    return transformer


def plain_pab(pipeline: Any) -> None:
    transformer = pipeline.transformer
    if not isinstance(pipeline, WanPipeline | Flux2KleinPipeline | Kandinsky5T2VPipeline):
        broadcasting(transformer)
        return
    # diffusers keeps one output an attention, so guidance, which these call for apart, needs a transformer of its own.
    each = [broadcasting(deepcopy(transformer)), broadcasting(deepcopy(transformer))]
    calls: list[None] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return each[len(calls) % 2](*args, **kwargs)

    transformer.forward = forward


PLAIN = {
    "deepcache": plain_deepcache,
    "tome": plain_tome,
    "fbcache": plain_fbcache,
    "taylorseer": plain_taylorseer,
    "pab": plain_pab,
}
CASES = [
    ("sd", "deepcache"),
    ("bk-sdm", "deepcache"),
    ("sd", "tome"),
    ("dit", "tome"),
    ("dit", "fbcache:threshold=0.3"),
    ("flux", "fbcache:threshold=0.3"),
    ("wan", "fbcache:threshold=0.3"),
    ("pixart", "fbcache:threshold=0.3"),
    ("cogvideox", "fbcache:threshold=0.3"),
    ("dit", "taylorseer"),
    ("flux", "taylorseer"),
    ("wan", "taylorseer"),
    ("pixart", "taylorseer"),
    ("cogvideox", "taylorseer"),
    ("sana", "taylorseer"),
    ("flux2", "taylorseer"),
    ("kandinsky", "taylorseer"),
    ("dit", "pab"),
    ("flux", "pab"),
    ("wan", "pab"),
    ("pixart", "pab"),
    ("cogvideox", "pab"),
    ("sana", "pab"),
    ("sd3", "pab"),
    ("flux2", "pab"),
    ("kandinsky", "pab"),
]


@pytest.mark.parametrize(("kind", "asked"), CASES)
def test_alone_it_is_bit_identical_to_the_acceleration_without_tstitch(kind: str, asked: str) -> None:
    make, denoiser, _, plainly = KINDS[kind]
    plain = make(denoiser(2))
    without = plainly(plain, STEPS)
    PLAIN[asked.partition(":")[0]](plain)
    expected = plainly(plain, STEPS)
    assert not np.array_equal(expected, without), "it should change the picture, or it does nothing"
    pipeline, stitched, _ = stitched_pipeline(kind, asked)
    for _ in range(2):  # the second trajectory does not begin with the first one's cache
        assert np.array_equal(draw(kind, pipeline, stitched, "large"), expected)


def test_deepcache_keeps_its_rhythm_where_pndm_repeats_a_timestep() -> None:
    plain = toys.sd_pipeline(toys.tiny_unet(2))
    plain.scheduler = schedulers.build("pndm", plain.scheduler.config)
    plain_deepcache(plain)
    expected = draw_sd(plain, STEPS)
    both = {"small": toys.tiny_unet(1), "large": toys.tiny_unet(2)}
    pipeline = toys.sd_pipeline(both["large"])
    pipeline.scheduler = schedulers.build("pndm", pipeline.scheduler.config)
    stitched = stitch(pipeline, "unet", both, "large")
    caches.accelerate(stitched, both, setting("deepcache"))
    assert np.array_equal(draw("sd", pipeline, stitched, "large"), expected)


def inner(denoiser: Any, asked: str = "") -> nn.Module:
    """A module that runs in full evaluations only."""
    if hasattr(denoiser, "down_blocks"):
        return denoiser.down_blocks[-1].resnets[0].conv1
    if hasattr(denoiser, "visual_transformer_blocks"):
        block = denoiser.visual_transformer_blocks[-1]
        return block.self_attention.to_query if "pab" in asked else block.feed_forward
    blocks = getattr(denoiser, "transformer_blocks", None) or denoiser.blocks
    if "pab" in asked:
        return (getattr(blocks[-1], "attn1", None) or blocks[-1].attn).to_q
    return getattr(blocks[-1], "ff", None) or blocks[-1].ffn


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("sd", "deepcache"),
        ("bk-sdm", "deepcache:interval=4"),
        ("sd", "deepcache,tome"),
        ("dit", "fbcache:threshold=10"),
        ("flux", "fbcache:threshold=10"),
        ("wan", "fbcache:threshold=10"),
        ("dit", "taylorseer"),
        ("flux", "taylorseer:warm=1:interval=4"),
        ("wan", "taylorseer:warm=2"),
        ("pixart", "fbcache:threshold=10"),
        ("cogvideox", "fbcache:threshold=10"),
        ("pixart", "taylorseer"),
        ("cogvideox", "taylorseer"),
        ("sana", "taylorseer"),
        ("dit", "pab"),
        ("flux", "pab:warm=1:interval=3"),
        ("wan", "pab:warm=2"),
        ("pixart", "pab"),
        ("cogvideox", "pab"),
        ("sana", "pab"),
        ("sd3", "pab"),
        ("flux2", "taylorseer"),
        ("flux2", "pab"),
        ("kandinsky", "taylorseer"),
        ("kandinsky", "pab"),
    ],
)
def test_caches_are_reset_at_a_switch(kind: str, asked: str) -> None:
    """The first evaluation after every switch is a full one, and the rhythm begins there."""
    pipeline, stitched, both = stitched_pipeline(kind, asked)
    full: set[tuple[str, int]] = set()
    for name, denoiser in both.items():
        inner(denoiser, asked).register_forward_pre_hook(
            lambda module, args, name=name: full.add((name, stitched.clock.evaluation))
        )
    runs = [("small", 0, 4), ("large", 4, 9), ("small", 9, 10)]
    turns = tuple(name for name, start, end in runs for _ in range(start, end))
    for _ in range(2):
        full.clear()
        draw(kind, pipeline, stitched, turns)
        for name, start, end in runs:
            places = [i - start for i in range(start, end) if (name, i) in full]
            if "fbcache" in asked:
                assert places == [0]  # with so high a threshold nothing but a fresh cache computes
            else:
                assert places == [p for p in range(end - start) if is_full(setting(asked), p)]


@pytest.mark.parametrize(
    ("kind", "asked"), [("sd", "deepcache"), ("dit", "fbcache"), ("dit", "taylorseer"), ("dit", "pab")]
)
def test_after_a_switch_the_output_is_that_of_a_fresh_cache(kind: str, asked: str) -> None:
    pipeline, stitched, _ = stitched_pipeline(kind, asked)
    outputs: list[torch.Tensor] = []
    calls: list[Any] = []
    stitched.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    stitched.register_forward_pre_hook(lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    draw(kind, pipeline, stitched, ("small",) * 4 + ("large",) * 6)
    _, fresh, _ = stitched_pipeline(kind, asked)
    fresh.follow("large", lambda: 6)
    with torch.no_grad():
        for (args, kwargs), expected in zip(calls[4:], outputs[4:], strict=True):
            assert torch.equal(fresh(*args, **kwargs)[0], expected)
            fresh.clock.stepped()


def test_a_cache_that_is_left_holds_no_memory() -> None:
    held: list[Any] = []
    pipeline, stitched, both = stitched_pipeline("sd", "deepcache")
    inner(both["small"]).register_forward_hook(lambda module, args, output: held.append(weakref.ref(output)))
    seen: list[bool] = []
    both["large"].register_forward_pre_hook(lambda module, args: seen.append(any(ref() is not None for ref in held)))
    draw("sd", pipeline, stitched, ("small",) * 4 + ("large",) * 6)
    assert held
    assert not seen[0]


def test_a_transformer_of_one_block_has_nothing_to_skip() -> None:
    both = {"small": toys.tiny_dit(1), "large": toys.tiny_dit(2, depth=3)}
    stitched = stitch(toys.class_pipeline(both["large"]), "transformer", both, "large")
    with pytest.raises(UsageError, match="fbcache needs two blocks or more"):
        caches.accelerate(stitched, both, setting("fbcache"))


def test_a_class_that_was_not_known_before_loading_is_refused_then() -> None:
    both = {"small": toys.tiny_unet(1), "large": toys.tiny_unet(2)}
    stitched = stitch(toys.sd_pipeline(both["large"]), "unet", both, "large")
    with pytest.raises(UsageError, match="fbcache does not work on small, a UNet2DConditionModel"):
        caches.accelerate(stitched, both, setting("fbcache"))


class Embedded(Family):
    """A family of U-Nets that is called with embeddings instead of prompts."""

    def call_arguments(self, prompts: Any, negative_prompt: Any, steps: int, pictures: Any = None) -> dict[str, Any]:
        embeddings = torch.randn(len(prompts), 3, 8, generator=torch.Generator().manual_seed(5))
        size = {"height": 16, "width": 16}
        return size | {
            "prompt_embeds": embeddings,
            "negative_prompt_embeds": torch.zeros_like(embeddings),
            "num_inference_steps": steps,
        }


def unet_family(clock: toys.FakeClock, asked: str, costs: Mapping[str, float], scheduler: str) -> Family:
    """U-Nets whose every call takes a tenth of `costs`, and the rest where its inner blocks run."""
    like = toys.family(clock, dict.fromkeys(costs, 0.0), scheduler=scheduler)
    both = {name: toys.tiny_unet(i + 1) for i, name in enumerate(costs)}
    for name, unet in both.items():
        clock.charge(unet, 0.1 * costs[name])
        clock.charge(inner(unet), 0.9 * costs[name])
    pipeline = toys.sd_pipeline(both["large"])
    pipeline.scheduler = schedulers.build(scheduler, pipeline.scheduler.config)
    stitched = stitch(pipeline, "unet", both, "large")
    accelerated = replace(like.setting, accelerate=accelerations.parse(asked))
    caches.accelerate(stitched, both, accelerated)
    return Embedded(like.entries, like.weights, both, pipeline, stitched, accelerated, like.device)


@pytest.mark.parametrize(
    ("asked", "scheduler"),
    [("deepcache", "ddim"), ("deepcache:interval=2,tome", "pndm")],
)
def test_what_is_predicted_for_a_cache_is_what_is_executed(asked: str, scheduler: str) -> None:
    """Wherever the switch falls in the rhythm: the cost of an interval is not its share of a whole trajectory's."""
    clock = toys.FakeClock()
    made_for = unet_family(clock, asked, {"small": 0.01, "large": 0.1}, scheduler)
    made = measure(made_for, Batch(("a", "b"), (0, 1)), clock, Effort(max_time_s=1e9), now=lambda: clock.now)
    large = made.denoisers[-1]
    assert large.cached_s is not None
    assert (large.steady_s.mean, large.cached_s.mean) == pytest.approx((0.1, 0.01))
    assert large.switch_s.mean == pytest.approx(0.0, abs=1e-9)
    for check in made.validation:
        assert check.measured_s.mean == pytest.approx(check.predicted_s)
    model = CostModel(made)
    full = [is_full(made.setting, place) for place in range(11)]
    for cut in range(1, STEPS):
        first = cut + 1 if scheduler == "pndm" else cut  # PNDM's first step has two evaluations
        expected = sum(0.01 if full[p] else 0.001 for p in range(first))
        expected += sum(0.1 if full[p] else 0.01 for p in range(STEPS - cut))
        assert model.mean_s((("small", cut), ("large", STEPS - cut))) == pytest.approx(expected)


def test_a_cache_that_watches_is_followed_through_the_trajectory() -> None:
    """On what it sees alone it is predicted exactly, stitched nearly: the flat mean would be off by far more."""
    clock = toys.FakeClock()
    like = toys.family(clock, {"small": 0.0, "large": 0.0})
    both = {"small": toys.tiny_dit(1, depth=3), "large": toys.tiny_dit(2, depth=3)}
    for name, cost in (("small", 0.01), ("large", 0.1)):
        clock.charge(both[name], 0.1 * cost)
        clock.charge(inner(both[name]), 0.9 * cost)
    pipeline = toys.class_pipeline(both["large"])
    stitched = stitch(pipeline, "transformer", both, "large")
    accelerated = replace(like.setting, accelerate=accelerations.parse("fbcache:threshold=0.2"))
    caches.accelerate(stitched, both, accelerated)
    family = Family(like.entries, like.weights, both, pipeline, stitched, accelerated, like.device)
    made = measure(family, Batch(("bag", "dress"), (0, 1)), clock, Effort(max_time_s=1e9), now=lambda: clock.now)
    course = made.denoisers[-1].course_s
    assert len(course) == STEPS
    assert set(np.round(course, 6)) == {0.01, 0.1}  # some full, some not, at the same steps in every call
    assert CostModel(made).trajectory_s("large") == pytest.approx(sum(course))
    for check in made.validation:
        assert check.predicted_s == pytest.approx(check.measured_s.mean, rel=0.35)


def test_every_acceleration_can_be_applied() -> None:
    assert set(caches._APPLY) == set(accelerations.ACCELERATIONS)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    stitched: Any = SimpleNamespace(entering=[])
    caches.accelerate(stitched, {"small": nn.Identity()}, SETTING)
    assert stitched.entering == []
