"""What cannot be stitched is refused before loading, in one sentence with both values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tstitch_cli.errors import ExitStatus, UsageError
from tstitch_cli.zoo.entry import Conditioning, Defaults, Entry, LatentSpace, Noise, decided, largest
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo

SMALL = Entry(
    name="small",
    title="Small",
    source="hub:us/small",
    revision=None,
    component="unet",
    subfolder="unet",
    pipeline="StableDiffusionPipeline",
    parts="hub:us/small",
    latent_space=LatentSpace("sd", 4, 8, "KL-f8", 0.18215),
    noise=Noise("epsilon", "scaled_linear", 0.00085, 0.012),
    conditioning=Conditioning("text", 768),
    defaults=Defaults(50, "pndm", 7.5, 512, 1, "float16"),
    parameters=1,
    licence="MIT",
)
LARGE = replace(SMALL, name="large", source="hub:us/large", parts="hub:us/large", parameters=2)


def refusal(*entries: Entry) -> str:
    with pytest.raises(UsageError) as caught:
        check(entries)
    assert caught.value.status is ExitStatus.USAGE
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def test_denoisers_that_agree_pass_in_any_order() -> None:
    check([SMALL, LARGE])
    check([LARGE, SMALL, replace(SMALL, name="third", source="hub:us/third")])


def test_one_or_none_is_too_few() -> None:
    assert "two or more" in refusal(SMALL)
    assert "two or more" in refusal()


def test_the_same_one_twice_is_refused() -> None:
    assert "given twice" in refusal(SMALL, LARGE, SMALL)
    assert "same denoiser" in refusal(SMALL, replace(SMALL, name="other"))
    assert "two denoisers are called small" in refusal(SMALL, replace(LARGE, name="small"))
    check([SMALL, replace(SMALL, name="older", revision="a" * 40)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latent_space": LatentSpace("sd", 16, 8, "KL-f8", 0.18215)}, ("latent space", "16 channels", "4 channels")),
        ({"latent_space": LatentSpace("sd", 4, 4, "KL-f4", 0.18215)}, ("latent space", "1/8", "1/4")),
        (
            {"latent_space": LatentSpace("xl", 4, 8, "KL-f8", 0.13025)},
            ("latent space", "nothing says", "autoencoders", "0.18215", "0.13025"),
        ),
        (
            {"latent_space": LatentSpace("xl", 4, 8, "KL-f8 of SDXL", 0.13025)},
            ("latent space", "their autoencoders differ", "KL-f8 of SDXL", "0.18215", "0.13025"),
        ),
        ({"latent_space": LatentSpace("ldm", 4, 8, "VQ-f8", 0.18215)}, ("autoencoders differ", "VQ-f8", "KL-f8")),
        ({"latent_space": LatentSpace("sd", 4, 8, "KL-f8", 0.18215, 0.1)}, ("latent space", "shift 0.1")),
        ({"latent_space": LatentSpace("sd", 4, 8, "KL-f8", None)}, ("latent space", "not known")),
        ({"pipeline": "StableDiffusionXLPipeline"}, ("pipeline", "StableDiffusionXLPipeline")),
        ({"component": "transformer"}, ("component", "unet", "transformer")),
        ({"conditioning": Conditioning("class", labels=("a",))}, ("conditioning", "text", "class")),
        ({"conditioning": Conditioning("text", 1024)}, ("cross-attention width", "768", "1024")),
    ],
)
def test_a_difference_is_told_with_both_names_and_values(change: dict[str, Any], told: tuple[str, ...]) -> None:
    for other in ([SMALL, replace(LARGE, **change)], [replace(LARGE, **change), SMALL]):
        message = refusal(*other)
        for part in ("small", "large", *told):
            assert part in message


@pytest.mark.parametrize(
    "change",
    [
        {"noise": Noise("v_prediction", "scaled_linear", 0.00085, 0.012)},
        {"noise": Noise("epsilon", "linear", 0.0001, 0.02)},
        {"noise": Noise("epsilon", "scaled_linear", 0.00085, 0.012, 500)},
        {"noise": Noise("epsilon", "scaled_linear", 0.00085, 0.012, learned_variance=True)},
        {"noise": Noise("flow")},
        {"conditioning": Conditioning("text", 768, guidance_embedding=True)},
        {"pipeline": "LatentConsistencyModelPipeline"},
    ],
)
def test_what_can_be_matched_passes(change: dict[str, Any]) -> None:
    check([SMALL, replace(LARGE, **change)])
    check([replace(LARGE, **change), SMALL])


def test_one_autoencoder_under_two_scales_is_matched_where_the_zoo_names_it() -> None:
    named = LatentSpace("sd", 4, 8, "KL-f8 of SD", 0.18215)
    check([replace(SMALL, latent_space=named), replace(LARGE, latent_space=replace(named, scaling_factor=0.23))])


def test_the_zoos_own_misfits_are_told_by_what_differs() -> None:
    zoo = Zoo.load()
    tiny, sd14 = zoo.resolve("bk-sdm-tiny"), zoo.resolve("sd14")
    sd2 = replace(sd14, name="sd2", source="hub:us/sd2", conditioning=Conditioning("text", 1024))
    assert "cross-attention width: 768 against 1024" in refusal(tiny, sd2)
    space = LatentSpace("sdxl", 4, 8, "KL-f8 of Stable Diffusion XL", 0.13025)
    sdxl = replace(sd2, name="sdxl", source="hub:us/sdxl", parts="hub:us/sdxl", latent_space=space)
    assert "their autoencoders differ" in refusal(sd14, replace(sdxl, pipeline="StableDiffusionXLPipeline"))
    check([tiny, replace(sd14, name="v", source="hub:us/v", noise=replace(sd14.noise, prediction="v_prediction"))])


def test_own_embeddings_need_no_common_width_but_a_text_encoder() -> None:
    wide = replace(LARGE, conditioning=Conditioning("text", 1024))
    check([SMALL, wide], "own")
    with pytest.raises(UsageError, match="unknown embeddings 'mine'"):
        check([SMALL, LARGE], "mine")
    with pytest.raises(UsageError, match="cannot be given text embeddings of its own"):
        check([replace(each, conditioning=Conditioning("class", labels=("a",))) for each in (SMALL, LARGE)], "own")


def test_different_classes_are_refused() -> None:
    a = replace(SMALL, conditioning=Conditioning("class", labels=("cat", "dog")))
    b = replace(LARGE, conditioning=Conditioning("class", labels=("dog", "cat")))
    assert "different classes" in refusal(a, b)


def test_one_autoencoder_whose_scaling_is_not_known_yet_is_still_the_same() -> None:
    unread = LatentSpace("fashion", 4, 4, "KL-f4")
    a = replace(SMALL, latent_space=unread, parts="bundled:fashion")
    check([a, replace(LARGE, latent_space=unread, parts="bundled:fashion")])
    assert "latent space" in refusal(a, replace(LARGE, latent_space=unread, parts="bundled:other"))


def test_the_pipeline_is_the_largest_ones_and_of_equal_ones_the_named_or_the_last() -> None:
    twin = replace(LARGE, name="twin", source="hub:us/twin", parts="hub:us/twin")
    assert largest([SMALL, LARGE]) is largest([LARGE, SMALL]) is LARGE
    assert decided([SMALL, LARGE])
    assert not decided([LARGE, twin])
    assert not decided([SMALL, replace(LARGE, parameters=None)])
    assert largest([LARGE, twin]) is twin
    assert largest([twin, LARGE]) is LARGE
    assert largest([twin, LARGE], "twin") is twin
