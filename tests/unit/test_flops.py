"""FLOPs of an evaluation, against the published figure."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from tests.toys import tiny_dit
from tstitch_cli.measuring import flops


def test_dit_xl_is_as_published() -> None:
    with torch.device("meta"):
        model = DiTTransformer2DModel(
            sample_size=32,
            num_layers=28,
            patch_size=2,
            attention_head_dim=72,
            num_attention_heads=16,
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
        )
        arguments = {
            "args": (torch.zeros(1, 4, 32, 32),),
            "kwargs": {"timestep": torch.zeros(1, dtype=torch.long), "class_labels": torch.zeros(1, dtype=torch.long)},
        }
    counted = flops.count(model, arguments)
    assert counted is not None
    assert counted / 2e9 == pytest.approx(118.6, rel=0.01)  # Peebles & Xie, 2023: 118.64 GMACs


def test_the_last_arguments_are_kept_and_the_hook_removed() -> None:
    model = tiny_dit(0)
    x, t, y = torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    with flops.last_arguments(model) as kept:
        model(x, timestep=t, class_labels=y)
    assert kept["args"][0] is x
    one = flops.count(model, kept)
    assert one == 2 * (
        flops.count(model, {"args": (x[:1],), "kwargs": {"timestep": t[:1], "class_labels": y[:1]}}) or 0
    )
    assert not model._forward_pre_hooks


def test_a_module_without_a_config_has_unknown_flops() -> None:
    class Foreign(nn.Identity):
        config = None

        @classmethod
        def from_config(cls, config: None) -> Foreign:
            raise TypeError("no config")

    assert flops.count(Foreign(), {"args": (), "kwargs": {}}) is None
