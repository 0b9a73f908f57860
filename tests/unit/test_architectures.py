"""The zoo's architectures: as large as their authors say, written once, and enough to build each pipeline."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import PAIRS
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.zoo import architectures
from tstitch_cli.zoo.architectures import ArchitectureFacts
from tstitch_cli.zoo.entry import Component, Entry
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo

PUBLISHED: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("sd14", "sd15", "inkpunk", "ghibli"), (859.5, 0.001)),
    **dict.fromkeys(("bk-sdm-base", "bk-sdm-base-2m"), (579.4, 0.001)),
    **dict.fromkeys(("bk-sdm-small", "bk-sdm-small-2m"), (482.3, 0.001)),
    **dict.fromkeys(("bk-sdm-tiny", "bk-sdm-tiny-2m"), (323.4, 0.001)),
    "sd21-base": (870, 0.01),
    "bk-sdm-v2-base": (580, 0.01),
    "bk-sdm-v2-small": (490, 0.01),
    "bk-sdm-v2-tiny": (330, 0.01),
    "sdxl": (2567, 0.001),
    "ssd-1b": (1300, 0.03),
    "segmind-vega": (745, 0.001),
    "koala-1b": (1161, 0.001),
    "koala-700m": (782, 0.002),
    "lcm-sdxl": (2567, 0.001),
    "lcm-ssd-1b": (1300, 0.03),
    "sd3-medium": (2000, 0.02),
    "sd35-large": (8100, 0.01),
    "sd35-medium": (2500, 0.11),  # the card counts the table of positions, 226 M values that are not trained
    "cogvideox-2b": (1690, 0.003),
    "cogvideox-5b": (5570, 0.001),
    "sana-0.6b": (590, 0.005),
    "sana-1.6b": (1604, 0.001),
    "sana-1.5-1.6b": (1604, 0.001),
    "sana-1.5-4.8b": (4800, 0.02),
    "pixart-sigma": (610, 0.002),
    "pixart-900m": (908.433824, 1e-9),
    "flux-dev": (12000, 0.01),
    "flux-lite": (8000, 0.025),
    "flux-mini": (3200, 0.01),
    "sana-sprint-0.6b": (590, 0.01),
    "sana-sprint-1.6b": (1600, 0.01),
    **dict.fromkeys(("flux2-klein-base-4b", "flux2-klein-4b"), (4000, 0.04)),
    **dict.fromkeys(("flux2-klein-base-9b", "flux2-klein-9b"), (9000, 0.01)),
    "kandinsky5-lite": (2000, 0.01),
    "kandinsky5-pro": (19000, 0.02),
    "wan-1.3b": (1300, 0.1),
    "wan-14b": (14000, 0.025),
}
"""Millions of parameters as the paper, the card or the repository's name has them, and to how much they are rounded."""

EXACT = {
    **dict.fromkeys(("sd14", "sd15", "inkpunk", "ghibli"), 859520964),
    **dict.fromkeys(("bk-sdm-base", "bk-sdm-base-2m"), 579384964),
    **dict.fromkeys(("bk-sdm-small", "bk-sdm-small-2m"), 482346884),
    **dict.fromkeys(("bk-sdm-tiny", "bk-sdm-tiny-2m"), 323384964),
    "sdxl": 2567463684,
    "ssd-1b": 1331334404,
    "segmind-vega": 745225604,
    "lcm-sdxl": 2567545604,
    "lcm-ssd-1b": 1331416324,
    "sd35-medium": 2243171520,
    "sd35-large": 8056627520,
    "sana-0.6b": 591747872,
    "sana-1.6b": 1604462752,
    "flux-dev": 11901408320,
    "flux-lite": 8163264064,
    "flux-mini": 3179199552,
    "wan-1.3b": 1418996800,
    "wan-14b": 14288491584,
}
"""To the last parameter, of configurations that were verified apart from the zoo: roundings would hide a wrong one."""


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return {name: entry for name, entry in Zoo.load().entries.items() if name in PUBLISHED}


def parameters_of(component: Component) -> int:
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    found = getattr(diffusers, component.model, None)
    with init_empty_weights(include_buffers=False):
        if found is None:
            found = getattr(transformers, component.model)
            model = found(found.config_class(**component.config))
        else:
            model = found(**component.config)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_denoiser_of_these_families_has_a_published_size(entries: dict[str, Entry]) -> None:
    families = {entry.family for entry in entries.values()}
    assert set(PUBLISHED) == {name for name, entry in Zoo.load().entries.items() if entry.family in families}


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(entries: dict[str, Entry], name: str) -> None:
    entry, (millions, rounded) = entries[name], PUBLISHED[name]
    assert entry.architecture is not None
    assert parameters_of(entry.architecture) == entry.parameters
    assert (entry.parameters or 0) / 1e6 == pytest.approx(millions, rel=rounded)
    assert entry.parameters == EXACT.get(name, entry.parameters)


@pytest.mark.parametrize(
    ("name", "part", "millions"),
    [
        ("sd14", "text_encoder", 123.1),  # CLIP ViT-L/14
        ("sd14", "vae", 83.7),
        ("sd21-base", "text_encoder", 340.4),  # OpenCLIP ViT-H/14 without its last layer
        ("sdxl", "text_encoder_2", 694.7),  # OpenCLIP ViT-bigG/14
        ("sdxl", "vae", 83.7),
        ("sd35-large", "text_encoder_3", 4762.3),  # T5 v1.1 XXL, its encoder
        ("flux-dev", "vae", 83.8),
        ("sana-1.6b", "text_encoder", 2614.3),  # Gemma 2 2B
        ("sana-1.6b", "vae", 312.3),
        ("pixart-sigma", "text_encoder", 4762.3),
        ("wan-14b", "text_encoder", 5680.9),  # UMT5 XXL, its encoder
        ("wan-14b", "vae", 126.9),
        ("cogvideox-5b", "vae", 215.6),
        ("sana-sprint-1.6b", "vae", 312.3),
        ("kandinsky5-pro", "vae", 246.5),  # of HunyuanVideo
        ("kandinsky5-pro", "text_encoder", 8292.2),  # Qwen2.5-VL 7B
        ("flux2-klein-base-9b", "vae", 84.0),
        ("flux2-klein-base-9b", "text_encoder", 8190.7),  # Qwen3 8B
        ("flux2-klein-base-4b", "text_encoder", 4022.5),  # Qwen3 4B
    ],
)
def test_the_other_parts_have_their_true_size(entries: dict[str, Entry], name: str, part: str, millions: float) -> None:
    assert parameters_of(entries[name].components[part]) / 1e6 == pytest.approx(millions, rel=0.001)


def test_every_pipeline_has_all_parts_it_needs(entries: dict[str, Entry]) -> None:
    import diffusers

    for entry in entries.values():
        made: Any = getattr(diffusers, entry.pipeline)
        needed = [name for name, p in inspect.signature(made.__init__).parameters.items() if p.default is p.empty]
        optional = {"self", entry.component, *made._optional_components}
        assert {*needed} - optional <= {*entry.components}, entry.name


def test_the_entries_agree_with_their_own_architectures(entries: dict[str, Entry]) -> None:
    """What is said of a denoiser for stitching and what it is built from are the same facts."""
    widths = (
        "cross_attention_dim",
        "text_embed_dim",
        "joint_attention_dim",
        "caption_channels",
        "text_dim",
        "in_text_dim",
    )
    for name, entry in entries.items():
        assert entry.architecture is not None
        config, space = entry.architecture.config, entry.latent_space
        width = next(config[key] for key in reversed(widths) if key in config)
        assert entry.conditioning.width == width, name
        packed = 4 if entry.pipeline.startswith("Flux") else 1
        inputs = config.get("in_channels") or config["in_visual_dim"]
        assert inputs == space.channels * packed, name
        outputs = config.get("out_channels", inputs)
        assert outputs == inputs * (2 if entry.noise.learned_variance else 1), name
        distilled = config.get("guidance_embeds", False) or "time_cond_proj_dim" in config
        assert entry.conditioning.guidance_embedding == distilled, name
        if "sample_size" in config:
            assert entry.defaults.size == config["sample_size"] * space.downscale, name
        vae = entry.components["vae"].config
        scheduler = entry.components["scheduler"].config
        if name != "cogvideox-2b":  # the parts are those of the large one, on whose terms this one is matched
            assert vae.get("scaling_factor", 1.0) == space.scaling_factor, name
            assert vae.get("shift_factor", 0.0) == space.shift_factor, name
            assert scheduler.get("snr_shift_scale") == entry.noise.snr_shift, name
        for beta in ("beta_schedule", "beta_start", "beta_end"):
            assert scheduler.get(beta) == getattr(entry.noise, beta), name


def test_what_is_to_be_stitched_can_be(entries: dict[str, Entry]) -> None:
    for small, large in PAIRS.values():
        widths = {entries[name].conditioning.width for name in (small, large)}
        check([entries[small], entries[large]], "own" if len(widths) > 1 else None)
    check([entries["flux2-klein-4b"], entries["flux2-klein-9b"]], "own")
    check([entries["lcm-ssd-1b"], entries["lcm-sdxl"]])
    check([entries["koala-700m"], entries["koala-1b"], entries["segmind-vega"], entries["sdxl"]])
    check([entries["sd3-medium"], entries["sd35-large"]])
    check([entries["bk-sdm-v2-tiny"], entries["sd21-base"]])
    check([entries["flux-mini"], entries["flux-dev"]])
    check([entries["sana-1.5-1.6b"], entries["sana-1.5-4.8b"]])


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("bk-sdm-tiny", "sd21-base"), "differ in cross-attention width: 768 against 1024"),
        (("ssd-1b", "sd14"), "share no latent space"),
        (("pixart-sigma", "sdxl"), "differ in pipeline"),
        (("flux-mini", "sd35-large"), "share no latent space"),
        (("wan-1.3b", "sd35-large"), "share no latent space"),
        (("sana-sprint-0.6b", "sana-1.6b"), "differ in pipeline"),
        (("kandinsky5-lite", "wan-14b"), "share no latent space"),
        (("flux2-klein-4b", "flux2-klein-9b"), "differ in cross-attention width: 7680 against 12288"),
    ],
)
def test_what_cannot_be_stitched_is_refused(entries: dict[str, Entry], pair: tuple[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check([entries[name] for name in pair])


def test_like_takes_another_architecture_with_changes() -> None:
    given = {
        "a": ArchitectureFacts(model="Net", config={"width": 1, "depth": 2}),
        "b": ArchitectureFacts(like="a", config={"depth": 1}),
        "c": ArchitectureFacts(like="b", config={"heads": 3}),
        "d": ArchitectureFacts(like="old"),
        "e": None,
    }
    shipped = {"old": Component("Older", {"width": 9}), "b": Component("Shadowed", {})}
    assert architectures.resolve("b", given, shipped) == Component("Net", {"width": 1, "depth": 1})
    assert architectures.resolve("c", given, shipped) == Component("Net", {"width": 1, "depth": 1, "heads": 3})
    assert architectures.resolve("d", given, shipped) == shipped["old"]
    assert architectures.resolve("e", given, shipped) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{like: b}", r"zoo.yaml:4:\d+ denoisers.a.architecture: comes back to a: a, like b, like a"),
        ("{like: nobody}", "no architecture of a denoiser 'nobody' is known"),
        ("{like: fashion-s, model: UNet2DConditionModel}", "expected model or like in the architecture of a"),
        ("{config: {depth: 3}}", "expected model or like in the architecture of a"),
        ("{lik: b}", "did you mean like"),
    ],
)
def test_what_is_wrong_with_an_architecture_is_told_with_its_place(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text(
        "schema: tstitch/zoo/1\ndenoisers:\n"
        "  b: {family: stable-diffusion, source: 'hub:me/b', architecture: {like: a}}\n"
        f"  a: {{family: stable-diffusion, source: 'hub:me/a', architecture: {text}}}\n"
    )
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    with pytest.raises(BadFileError, match=said):
        Zoo.load()


def test_a_users_denoiser_may_be_like_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text(
        "schema: tstitch/zoo/1\ndenoisers:\n"
        "  mine: {family: stable-diffusion, source: 'hub:me/mine', architecture: {like: sd14}}\n"
    )
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    zoo = Zoo.load()
    assert zoo.entries["mine"].architecture == zoo.entries["sd14"].architecture
    assert zoo.entries["mine"].family == "stable-diffusion"
