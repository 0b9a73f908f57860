"""The samplers that are made from the config of another kind."""

from __future__ import annotations

import json

import pytest

from tstitch_cli import schedulers
from tstitch_cli.zoo.registry import BUNDLED

CLIPPING = ("ddim", "ddpm")
"""Those that clip what is predicted unless they are told not to."""


@pytest.mark.parametrize("name", CLIPPING)
def test_latents_are_clipped_where_the_config_says_so_alone(name: str) -> None:
    for config, clips in (({}, False), ({"clip_sample": False}, False), ({"clip_sample": True}, True)):
        made = schedulers.build(name, {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, **config})
        assert made.config["clip_sample"] is clips


def test_the_text_family_says_for_every_sampler_that_its_latents_are_not_clipped() -> None:
    config = json.loads((BUNDLED / "tiny-sd/scheduler/scheduler_config.json").read_text())
    assert config["clip_sample"] is False
