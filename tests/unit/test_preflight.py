"""What cannot be stitched is refused before loading, in one sentence with both values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tstitch_cli.errors import ExitStatus, UsageError
from tstitch_cli.zoo.entry import Conditioning, Defaults, Entry, LatentSpace, Noise
from tstitch_cli.zoo.preflight import check

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
        ({"latent_space": LatentSpace("xl", 4, 8, "KL-f8", 0.13025)}, ("latent space", "0.18215", "0.13025")),
        ({"latent_space": LatentSpace("sd", 4, 8, "KL-f8", 0.18215, 0.1)}, ("latent space", "shift 0.1")),
        ({"latent_space": LatentSpace("sd", 4, 8, "KL-f8", None)}, ("latent space", "not known")),
        ({"pipeline": "StableDiffusionXLPipeline"}, ("pipeline", "StableDiffusionXLPipeline")),
        ({"component": "transformer"}, ("component", "unet", "transformer")),
        ({"conditioning": Conditioning("class", labels=("a",))}, ("conditioning", "text", "class")),
        ({"conditioning": Conditioning("text", 1024)}, ("cross-attention width", "768", "1024")),
        ({"conditioning": Conditioning("text", 768, guidance_embedding=True)}, ("guidance embedding", "no", "yes")),
        ({"noise": Noise("v_prediction", "scaled_linear", 0.00085, 0.012)}, ("prediction", "epsilon", "v_prediction")),
        ({"noise": Noise("epsilon", "linear", 0.00085, 0.012)}, ("noise schedule", "scaled_linear", "linear")),
        ({"noise": Noise("epsilon", "scaled_linear", 0.00085, 0.02)}, ("noise schedule", "0.012", "0.02")),
        ({"noise": Noise("epsilon", "scaled_linear", 0.00085, 0.012, 500)}, ("noise schedule", "1000", "500")),
        ({"noise": Noise("epsilon", "scaled_linear", 0.00085, 0.012, 1000, True)}, ("learned variance",)),
    ],
)
def test_a_difference_is_told_with_both_names_and_values(change: dict[str, Any], told: tuple[str, ...]) -> None:
    for other in ([SMALL, replace(LARGE, **change)], [replace(LARGE, **change), SMALL]):
        message = refusal(*other)
        for part in ("small", "large", *told):
            assert part in message


def test_different_classes_are_refused() -> None:
    a = replace(SMALL, conditioning=Conditioning("class", labels=("cat", "dog")))
    b = replace(LARGE, conditioning=Conditioning("class", labels=("dog", "cat")))
    assert "different classes" in refusal(a, b)


def test_one_autoencoder_whose_scaling_is_not_known_yet_is_still_the_same() -> None:
    unread = LatentSpace("fashion", 4, 4, "KL-f4")
    a = replace(SMALL, latent_space=unread, parts="bundled:fashion")
    check([a, replace(LARGE, latent_space=unread, parts="bundled:fashion")])
    assert "latent space" in refusal(a, replace(LARGE, latent_space=unread, parts="bundled:other"))
