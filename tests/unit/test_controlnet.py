"""ControlNets beside denoisers with fewer blocks: who is given which of its feature maps, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxControlNetModel, MultiControlNetModel
from torch import nn

from tests import pipelines, toys
from tests.pipelines import KINDS, Kind
from tests.tiny import tiny
from tstitch_cli.denoisers import load
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.networks import residuals, task_pipelines
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import StitchedDenoiser, planned_evaluations, stitch
from tstitch_cli.training.tiny_sd import SHAPES
from tstitch_cli.zoo import controls
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.encoders import Encoder, encoder_of, kept
from tstitch_cli.zoo.entry import Component, Conditioning, Entry
from tstitch_cli.zoo.registry import Zoo

STEPS = 4
SETTING = Setting(STEPS, "ddim", 7.5, 2, 16, "float32", "cpu", control="net")
THREE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
TWO = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
SMALLER: dict[str, dict[str, Any]] = {
    "base": THREE | {"layers_per_block": 1},
    "small": THREE | {"layers_per_block": 1, "mid_block_type": None},
    "tiny": TWO | {"layers_per_block": 1, "mid_block_type": None},
}
"""What BK-SDM makes of a U-Net of three stages with two layers each; `tiny` also as tiny-sd-small."""
PLACES = {"large": (0, 1, 2, 3, 4, 5, 6, 7, 8), "base": (0, 2, 3, 5, 6, 8), "small": (0, 2, 3, 5, 6, 8)}
PLACES["tiny"] = (0, 2, 3, 5)
"""After the first convolution 0; in the stages' layers 1 and 2, 4 and 5, 7 and 8; halved between them 3 and 6."""


def sd_unets() -> dict[str, Any]:
    named = {name: toys.tiny_unet(seed, **changes) for seed, (name, changes) in enumerate(SMALLER.items())}
    return named | {"large": toys.tiny_unet(9, **THREE, layers_per_block=2)}


def steered(kind: Kind, unets: dict[str, Any], host: str = "large") -> tuple[Any, StitchedDenoiser, Any]:
    """The pipeline that a setting with a ControlNet of the large one makes of a plain one, stitched; and the net."""
    plain, net = kind.make(unets[host]), pipelines.controlnet(unets["large"])
    unets = {name: unet for name, unet in unets.items() if name != "large" or host == "large"}
    pipeline = task_pipelines.for_setting(plain, unets, SETTING, Control("net", "folder:/net"), net)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, stitch(pipeline, "unet", unets, host), net


def control_kind(name: str) -> Kind:
    """How a plain kind is called with a control image."""
    return replace(KINDS[name], given=KINDS[f"{name}-control"].given)


def test_each_denoiser_is_given_what_is_meant_for_the_blocks_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    unets = sd_unets()
    pipeline, switch, net = steered(control_kind("sd"), unets)
    said: list[Any] = []
    net.register_forward_hook(lambda module, args, output: said.append(output))
    heard: list[tuple[str, Any, Any]] = []

    def listening(name: str, unet: nn.Module) -> None:
        plain = unet.forward

        def forward(*args: Any, **given: Any) -> Any:
            maps, middle = given["down_block_additional_residuals"], given["mid_block_additional_residual"]
            heard.append((name, maps, middle))
            return plain(*args, **given)

        monkeypatch.setattr(unet, "forward", forward)

    for name, unet in unets.items():
        listening(name, unet)
    switch.follow(TURNS, lambda: planned_evaluations(pipeline))
    assert control_kind("sd").draw(pipeline, STEPS).isfinite().all()
    assert [name for name, _, _ in heard] == list(TURNS) == list(switch.realised)
    for (name, maps, middle), (all_maps, all_middle) in zip(heard, said, strict=True):
        assert len(maps) == len(PLACES[name])
        assert all(given is all_maps[place] for given, place in zip(maps, PLACES[name], strict=True)), name
        if name in ("base", "large"):
            assert middle is all_middle
        else:
            assert not middle.any()


@pytest.mark.parametrize("name", ["large", "base", "small", "tiny"])
def test_alone_each_draws_what_plain_diffusers_draws_with_those_maps(name: str) -> None:
    unets = sd_unets()
    pipeline, switch, _ = steered(control_kind("sd"), unets)
    switch.follow(name, lambda: planned_evaluations(pipeline))
    drawn = control_kind("sd").draw(pipeline, STEPS)

    own = sd_unets()
    net = pipelines.controlnet(own["large"])
    if name != "large":
        middle = 1.0 if name == "base" else 0.0

        def choose(module: nn.Module, args: Any, output: Any) -> Any:
            return [output[0][place] for place in PLACES[name]], output[1] if middle else torch.zeros(1)

        net.register_forward_hook(choose)
    parts = {"unet": own[name], "vae": toys.tiny_vae(3), "scheduler": pipelines.scheduler(), "controlnet": net}
    expected = control_kind("sd").draw(pipelines.made("StableDiffusionControlNetPipeline", **parts), STEPS)
    assert torch.equal(drawn, expected)
    steered_less = control_kind("sd").draw(KINDS["sd-control"].make(own["large"]), STEPS)
    assert torch.equal(drawn, steered_less) == (name == "large")


def test_a_smaller_one_follows_the_control() -> None:
    """Its pictures change with the control image, and not where the ControlNet says nothing."""
    kind = control_kind("sd")
    pipeline, switch, net = steered(kind, sd_unets())
    switch.follow("tiny", lambda: planned_evaluations(pipeline))
    drawn = kind.draw(pipeline, STEPS)
    other = replace(kind, given=lambda: kind.given() | {"image": [pipelines.picture(1), pipelines.picture(2)]})
    assert not torch.equal(other.draw(pipeline, STEPS), drawn)
    for block in net.controlnet_down_blocks:
        nn.init.zeros_(block.weight)
    silent = kind.draw(pipeline, STEPS)
    assert torch.equal(silent, other.draw(pipeline, STEPS))
    alone = sd_unets()["tiny"]
    assert torch.equal(silent, KINDS["sd"].draw(KINDS["sd"].make(alone), STEPS))


def test_the_denoiser_that_it_was_trained_on_need_not_be_there() -> None:
    kind = control_kind("sd")
    with_large, without = steered(kind, sd_unets()), steered(kind, sd_unets(), host="base")
    drawn = []
    for pipeline, switch, _ in (with_large, without):
        switch.follow(("tiny", "tiny", "base", "base"), lambda: STEPS)
        drawn.append(kind.draw(pipeline, STEPS))
    assert torch.equal(*drawn)


TURNS = ("tiny", "small", "base", "large")


def test_in_a_pipeline_of_ones_own_each_is_given_the_same() -> None:
    kind = control_kind("sd")
    unets = sd_unets()
    pipeline = KINDS["sd-control"].make(unets["large"])
    drawn = []
    for _ in range(2):
        switch = stitch(pipeline, "unet", unets, "large")
        switch.follow(TURNS, lambda: planned_evaluations(pipeline))
        drawn.append(kind.draw(pipeline, STEPS))
        assert switch.realised == TURNS
    expected, switch, _ = steered(kind, sd_unets())
    switch.follow(TURNS, lambda: STEPS)
    drawn.append(kind.draw(expected, STEPS))
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[2])  # stitched anew, nothing is chosen from twice
    before = type(pipeline.scheduler), pipeline.unet
    with pytest.raises(UsageError, match=r"ControlNet of the pipeline adds to 9 feature maps .*, wide has 4"):
        stitch(pipeline, "unet", unets | {"wide": toys.tiny_unet(1, **TWO | {"block_out_channels": (16, 16)})}, "large")
    assert (type(pipeline.scheduler), pipeline.unet) == before


def test_of_several_controlnets_each_denoiser_is_given_what_is_meant_for_it() -> None:
    unets = sd_unets()
    kind, nets = control_kind("sd"), [pipelines.controlnet(unets["large"]) for _ in range(2)]
    for net in nets:
        net.controlnet_mid_block.weight.data.mul_(0.5)
        for block in net.controlnet_down_blocks:
            block.weight.data.mul_(0.5)
    parts = {"vae": toys.tiny_vae(3), "scheduler": pipelines.scheduler(), "unet": unets["large"]}
    pipeline = pipelines.made("StableDiffusionControlNetPipeline", **parts, controlnet=MultiControlNetModel(nets))
    switch = stitch(pipeline, "unet", unets, "large")
    switch.follow(TURNS, lambda: STEPS)
    images = [[picture, picture] for picture in kind.given()["image"]]  # for each picture those of every net
    twice = replace(kind, given=lambda: kind.given() | {"image": images})
    drawn = twice.draw(pipeline, STEPS)
    one, switch, _ = steered(kind, sd_unets())
    switch.follow(TURNS, lambda: STEPS)
    assert torch.equal(drawn, kind.draw(one, STEPS))  # halves add up to the whole
    other = MultiControlNetModel([nets[0], pipelines.controlnet(unets["base"])])
    with pytest.raises(UsageError, match="denoisers with different blocks"):
        residuals.kept_by_each(other, {"tiny": unets["tiny"]})


def test_a_transformers_controlnet_takes_denoisers_that_are_built_alike_alone() -> None:
    own: Any = pipelines.flux(1).config
    net = FluxControlNetModel.from_config(own, num_layers=1, num_single_layers=1)
    alike = {"small": pipelines.flux(1), "large": pipelines.flux(2)}
    assert residuals.kept_by_each(net, alike) == {}
    deeper = type(alike["large"])(**dict(alike["large"].config) | {"num_layers": 2})
    with pytest.raises(UsageError, match=r"small and large have different blocks \(num_layers 1 and 2\)"):
        residuals.kept_by_each(net, alike | {"large": deeper})


def test_sdxl_and_a_smaller_one() -> None:
    kind, small = control_kind("xl"), {"layers_per_block": 1, "mid_block_type": None}
    sizes = {"transformer_layers_per_block": (1, 2), **_XL}
    unets = {"small": toys.tiny_unet(1, **sizes, **small), "large": toys.tiny_unet(2, **sizes, layers_per_block=2)}
    pipeline, switch, _ = steered(kind, unets)
    switch.follow(("small", "small", "large", "large"), lambda: planned_evaluations(pipeline))
    assert kind.draw(pipeline, STEPS).isfinite().all()
    switch.follow("large", lambda: planned_evaluations(pipeline))
    expected = KINDS["xl-control"].make(toys.tiny_unet(2, **sizes, layers_per_block=2))
    assert torch.equal(kind.draw(pipeline, STEPS), kind.draw(expected, STEPS))


_XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}

SD_MAPS = (320,) * 4 + (640,) * 3 + (1280,) * 5


@pytest.mark.parametrize(
    ("config", "maps"),
    [
        ({"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}, SD_MAPS),
        ({}, SD_MAPS),
        ({"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 1}, (320,) * 3 + (640,) * 2 + (1280,) * 3),
        ({"block_out_channels": [320, 640, 1280], "layers_per_block": 1}, (320, 320, 320, 640, 640, 1280)),
        ({"block_out_channels": [320, 640, 1280], "layers_per_block": 2}, (320,) * 4 + (640,) * 3 + (1280,) * 2),
    ],
    ids=["sd", "default", "bk-sdm-small", "bk-sdm-tiny", "sdxl"],
)  # fmt: skip
def test_feature_maps_that_a_denoiser_takes(config: dict[str, Any], maps: tuple[int, ...]) -> None:
    assert tuple(encoder_of(config).maps().values()) == maps


@pytest.mark.parametrize("changes", [{}, {"layers_per_block": 2}])
def test_the_count_is_that_of_a_real_controlnet(changes: dict[str, Any]) -> None:
    unet = toys.tiny_unet(1, **changes)
    net = pipelines.controlnet(unet)
    maps = tuple(block.out_channels for block in net.controlnet_down_blocks)
    assert encoder_of(unet.config) == encoder_of(net.config)
    assert tuple(encoder_of(net.config).maps().values()) == maps


@pytest.mark.parametrize(
    ("large", "small", "places", "middle"),
    [
        ("sd14", "sd15", tuple(range(12)), True),
        ("sd14", "bk-sdm-base", (0, 2, 3, 5, 6, 8, 9, 11), True),
        ("sd14", "bk-sdm-small", (0, 2, 3, 5, 6, 8, 9, 11), False),
        ("sd14", "bk-sdm-tiny", (0, 2, 3, 5, 6, 8), False),
        ("bk-sdm-small", "bk-sdm-tiny", (0, 1, 2, 3, 4, 5), False),
        ("sdxl", "ssd-1b", tuple(range(9)), True),
        ("sdxl", "koala-1b", (0, 2, 3, 5, 6, 8), True),
        ("sdxl", "koala-700m", (0, 2, 3, 5, 6, 8), False),
    ],
)
def test_what_the_zoos_smaller_denoisers_kept(large: str, small: str, places: tuple[int, ...], middle: bool) -> None:
    entries = Zoo.shipped().entries
    both = [entries[name].architecture for name in (large, small)]
    ours, theirs = (encoder_of(each.config) for each in both if each is not None)
    found = kept(ours, theirs)
    assert found is not None
    assert (found.maps, found.middle, found.whole) == (places, middle, middle and len(places) == len(ours.maps()))
    assert places == tuple(range(len(ours.maps()))) or kept(theirs, ours) is None


def test_what_the_tiny_family_kept() -> None:
    encoders = {name: encoder_of(shape.build().config) for name, shape in SHAPES.items()}
    base, small = (kept(encoders["tiny-sd"], encoders[name]) for name in ("tiny-sd-base", "tiny-sd-small"))
    assert base is not None
    assert (base.maps, base.middle) == ((0, 3, 4, 7, 8, 11), True)
    assert small is not None
    assert (small.maps, small.middle) == ((0, 3, 4, 7), False)


def test_a_controlnet_of_a_denoiser_without_a_middle_is_followed_as_it_was_trained() -> None:
    """diffusers adds what is meant for the middle all the same."""
    own = Encoder((8, 16), (1, 1), middle=False)
    assert kept(own, own) is not None
    assert kept(own, own).whole  # type: ignore[union-attr]


def entry(name: str, pipeline: str = "StableDiffusionPipeline", **changes: Any) -> Entry:
    return replace(Zoo.load().entries["sd14"], name=name, pipeline=pipeline, **changes)


def built(name: str, **config: Any) -> Entry:
    return entry(name, architecture=Component("UNet2DConditionModel", config))


def test_known_controlnets_fit_the_denoisers_that_they_were_trained_on_and_smaller_ones() -> None:
    known = Zoo.load().controls
    sd = built("sd")
    canny = controls.resolve(known, "canny", sd)
    assert canny.source == "hub:lllyasviel/sd-controlnet-canny"
    controls.check(canny, [Zoo.load().entries["bk-sdm-tiny"], sd])
    for other, said in (
        (
            built("wide", block_out_channels=[640, 1280]),
            r"canny adds to 12 feature maps .*, wide has 6",
        ),
        (built("deep", layers_per_block=3), "deep has 16 feature maps"),
        (built("long", block_out_channels=[320, 640, 1280, 1280, 1280]), "long has 15 feature maps"),
        (entry("sd2", conditioning=Conditioning("text", 1024), architecture=None), "768 wide, sd2 has 1024"),
        (entry("dit", "DiTPipeline"), "takes no ControlNet"),
    ):
        with pytest.raises(UsageError, match=said):
            controls.check(canny, [other, sd])
    sd2 = entry("sd2", conditioning=Conditioning("text", 1024), architecture=None)
    assert controls.resolve(known, "owner/name", sd2).source == "hub:owner/name"
    with pytest.raises(UsageError, match="no ControlNet 'cany'") as refused:
        controls.resolve(known, "cany", sd)
    assert "did you mean canny" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="sd35-large takes no ControlNet"):
        controls.resolve(known, "canny", Zoo.load().entries["sd35-large"])


def test_without_weights_a_controlnet_has_the_size_of_the_denoiser_it_was_trained_on() -> None:
    entries = [tiny("bk-sdm-tiny"), tiny("sd14")]
    setting = replace(SETTING, size=64, batch_size=1, control="canny")
    large = encoder_of(entries[1].architecture.config)  # type: ignore[union-attr]
    family = load(entries, setting, control=Control("canny", "hub:me/canny", encoder=large), random_weights=True)
    assert encoder_of(family.pipeline.controlnet.config) == large
    other = Control("canny", "hub:me/canny", encoder=Encoder((8, 16, 16), (2, 2, 2)))
    with pytest.raises(UsageError, match="of a larger denoiser than these"):
        load(entries, setting, control=other, random_weights=True)


OWN = """schema: tstitch/zoo/1
controls:
- {{name: lines, source: "folder:nets/lines", pipeline: StableDiffusionPipeline, width: 768, encoder: {encoder}}}
"""


def test_a_controlnet_of_ones_own_is_seen_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "zoo.yaml"))
    (tmp_path / "zoo.yaml").write_text(OWN.format(encoder="{channels: [320, 640], layers: [2, 2]}"))
    found = controls.resolve(Zoo.load().controls, "lines", Zoo.load().entries["sd14"])
    assert found.source == f"folder:{tmp_path / 'nets/lines'}"
    assert found.encoder == Encoder((320, 640), (2, 2))
    for wrong in ("{channels: [320], layers: [2, 2]}", "{channels: [], layers: []}", "{channels: [320], layers: [0]}"):
        (tmp_path / "zoo.yaml").write_text(OWN.format(encoder=wrong))
        with pytest.raises(BadFileError, match="the channels and the layers of as many stages"):
            Zoo.load()
