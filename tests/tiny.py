"""The zoo's text-to-image and video families at toy size: the true configs, every width and depth cut down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tstitch_cli.zoo.entry import Component, Entry
from tstitch_cli.zoo.registry import Zoo

_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_CLIP = {**_TEXT, "vocab_size": 100, "projection_dim": 16}
_T5 = {"vocab_size": 100, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_QWEN = {
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 27,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
_KL = {
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
}
_UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
SMALLER: dict[str, dict[str, dict[str, Any]]] = {
    "stable-diffusion": {
        "unet": {**_UNET, "cross_attention_dim": 16, "attention_head_dim": 4},
        "vae": _KL,
        "text_encoder": _CLIP,
    },
    "stable-diffusion-2": {
        "unet": {**_UNET, "cross_attention_dim": 24, "attention_head_dim": 4},
        "vae": _KL,
        "text_encoder": _CLIP | {"hidden_size": 24},
    },
    "sdxl": {
        "unet": {
            **_UNET,
            "cross_attention_dim": 32,
            "attention_head_dim": [2, 4],
            "transformer_layers_per_block": [1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 64,
            "reverse_transformer_layers_per_block": None,
        },
        "vae": _KL,
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
    },
    "sd3": {
        "transformer": {
            "sample_size": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": 32,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 8,
            "num_layers": 2,
        },
        "vae": _KL,
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
        "text_encoder_3": _T5 | {"d_model": 32},
    },
    "flux": {
        "transformer": {
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": [4, 6, 6],
        },
        "vae": _KL,
        "text_encoder": _CLIP,
        "text_encoder_2": _T5,
    },
    "sana": {
        "transformer": {
            "sample_size": 2,
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
        },
        "vae": {
            "encoder_block_out_channels": [8, 8, 8, 8, 8, 32],
            "decoder_block_out_channels": [8, 8, 8, 8, 8, 32],
            "encoder_layers_per_block": [1, 1, 1, 1, 1, 1],
            "decoder_layers_per_block": [1, 1, 1, 1, 1, 1],
            "attention_head_dim": 8,
        },
        "text_encoder": {**_TEXT, "vocab_size": 100, "num_key_value_heads": 1, "head_dim": 8},
    },
    "flux2-klein": {
        "transformer": {
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "joint_attention_dim": 48,
            "timestep_guidance_channels": 16,
            "axes_dims_rope": [4, 4, 4, 4],
        },
        "vae": {name: value for name, value in _KL.items() if name != "sample_size"},
        "text_encoder": _QWEN,
    },
    "flux2-klein-base-4b": {
        "transformer": {"joint_attention_dim": 24},
        "text_encoder": {"hidden_size": 8},
    },
    "kandinsky5": {
        "transformer": {
            "in_text_dim": 16,
            "in_text_dim2": 16,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 32,
            "num_text_blocks": 1,
            "num_visual_blocks": 1,
            "axes_dims": [8, 4, 4],
        },
        "vae": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
        "text_encoder": {
            "text_config": {
                **_QWEN,
                "num_hidden_layers": 2,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 16,
                "fullatt_block_indexes": [0],
            },
        },
        "text_encoder_2": _CLIP,
    },
    "pixart-sigma": {
        "transformer": {
            "sample_size": 8,
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
        },
        "vae": _KL,
        "text_encoder": _T5,
    },
    "cogvideox": {
        "transformer": {
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "text_embed_dim": 16,
            "time_embed_dim": 8,
            "max_text_seq_length": 226,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 9,
        },
        "vae": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
        "text_encoder": _T5,
    },
    "wan": {
        "transformer": {
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "ffn_dim": 32,
            "text_dim": 16,
            "freq_dim": 16,
        },
        "vae": {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        "text_encoder": _T5,
    },
}
SMALLER["sana-sprint"] = SMALLER["sana"]
"""Family -> part of its pipeline -> what of the true config is cut down; for single denoisers, what else is."""
PAIRS = {
    "stable-diffusion": ("bk-sdm-tiny", "sd14"),
    "sdxl": ("ssd-1b", "sdxl"),
    "lcm": ("lcm-ssd-1b", "lcm-sdxl"),
    "sd3": ("sd35-medium", "sd35-large"),
    "flux": ("flux-lite", "flux-dev"),
    "sana": ("sana-0.6b", "sana-1.6b"),
    "pixart-sigma": ("pixart-sigma", "pixart-900m"),
    "sana-sprint": ("sana-sprint-0.6b", "sana-sprint-1.6b"),
    "flux2-klein": ("flux2-klein-base-4b", "flux2-klein-base-9b"),
    "kandinsky5": ("kandinsky5-lite", "kandinsky5-pro"),
    "cogvideox": ("cogvideox-2b", "cogvideox-5b"),
    "wan": ("wan-1.3b", "wan-14b"),
}
"""Family, or what sets denoisers within one apart -> a smaller and a larger of them."""


def tiny(name: str) -> Entry:
    """The zoo's entry `name` with everything cut down to toy size."""
    entry = Zoo.load().entries[name]
    assert entry.family is not None
    assert entry.architecture is not None
    family, own = SMALLER[entry.family], SMALLER.get(name, {})
    changes = {part: family.get(part, {}) | own.get(part, {}) for part in {*family, *own}}
    return replace(
        entry,
        architecture=_smaller(entry.architecture, changes[entry.component]),
        components={part: _smaller(known, changes.get(part, {})) for part, known in entry.components.items()},
    )


def _smaller(component: Component, changes: dict[str, Any]) -> Component:
    return Component(component.model, component.config | changes)
