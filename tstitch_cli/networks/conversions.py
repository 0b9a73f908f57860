"""From the names that parameters have in original checkpoints to those of the models that tstitch runs.

Every function takes the checkpoint's tensors by name and the config of the model, and returns them by the model's
names. A tensor whose name is not known keeps it, so that whoever compares with the model can tell of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tstitch_cli.errors import BadFileError

Tensors = dict[str, torch.Tensor]
Conversion = Callable[[Tensors, Mapping[str, Any]], Tensors]
Rules = Sequence[tuple[str, str | tuple[str, ...]]]
"""Pattern of an original name -> the new name; several new names share the tensor out in equal parts."""

_DIT: Rules = (
    (r"x_embedder\.(proj\..*)", r"pos_embed.\1"),
    (
        r"blocks\.(\d+)\.attn\.qkv\.(.*)",
        tuple(rf"transformer_blocks.\1.attn1.to_{part}.\2" for part in "qkv"),
    ),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"transformer_blocks.\1.attn1.to_out.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", r"transformer_blocks.\1.ff.net.0.proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", r"transformer_blocks.\1.ff.net.2.\2"),
    (r"blocks\.(\d+)\.adaLN_modulation\.1\.(.*)", r"transformer_blocks.\1.norm1.linear.\2"),
    (r"final_layer\.adaLN_modulation\.1\.(.*)", r"proj_out_1.\1"),
    (r"final_layer\.linear\.(.*)", r"proj_out_2.\1"),
)
_DIT_SHARED = {
    "t_embedder.mlp.0.": "timestep_embedder.linear_1.",
    "t_embedder.mlp.2.": "timestep_embedder.linear_2.",
    "y_embedder.embedding_table.": "class_embedder.embedding_table.",
}
"""What DiT has once and diffusers has in every block."""

_HALVES = {"in_blocks": "down_blocks", "out_blocks": "up_blocks"}
_U_VIT: Rules = (
    (r"patch_embed\.proj\.(.*)", r"patch_embedding.\1"),
    (r"label_emb\.(.*)", r"label_embedding.\1"),
    (r"pos_embed", r"position_embedding"),
    (r"(.*)\.attn\.qkv\.weight", tuple(rf"\1.attention.to_{part}.weight" for part in "qkv")),
    (r"(.*)\.attn\.proj\.(.*)", r"\1.attention.to_out.0.\2"),
    (r"(.*)\.mlp\.fc1\.(.*)", r"\1.feed_forward.net.0.proj.\2"),
    (r"(.*)\.mlp\.fc2\.(.*)", r"\1.feed_forward.net.2.\2"),
    (r"(.*)\.skip_linear\.(.*)", r"\1.join.\2"),
    (r"norm\.(.*)", r"norm_out.\1"),
    (r"decoder_pred\.(.*)", r"proj_out.\1"),
    (r"final_layer\.(.*)", r"conv_out.\1"),
)


def _flux_embedder(original: str, name: str) -> Rules:
    layers = (("in_layer", 1), ("out_layer", 2))
    made = rf"time_text_embed.{name}_embedder.linear_"
    return tuple((rf"{original}\.{layer}\.(.*)", rf"{made}{number}.\1") for layer, number in layers)


def _flux_stream(stream: str, norm: str, feed: str, projections: tuple[str, str, str], out: str, scale: str) -> Rules:
    """What a double block has for its picture or for its text."""
    block, made = rf"double_blocks\.(\d+)\.{stream}", r"transformer_blocks.\1"
    return (
        (rf"{block}_mod\.lin\.(.*)", rf"{made}.{norm}.linear.\2"),
        (rf"{block}_attn\.qkv\.(.*)", tuple(rf"{made}.attn.{projection}.\2" for projection in projections)),
        (rf"{block}_attn\.norm\.query_norm\.scale", rf"{made}.attn.{scale}q.weight"),
        (rf"{block}_attn\.norm\.key_norm\.scale", rf"{made}.attn.{scale}k.weight"),
        (rf"{block}_attn\.proj\.(.*)", rf"{made}.attn.{out}.\2"),
        (rf"{block}_mlp\.0\.(.*)", rf"{made}.{feed}.net.0.proj.\2"),
        (rf"{block}_mlp\.2\.(.*)", rf"{made}.{feed}.net.2.\2"),
    )


_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")
_FLUX: Rules = (
    (r"img_in\.(.*)", r"x_embedder.\1"),
    (r"txt_in\.(.*)", r"context_embedder.\1"),
    *_flux_embedder("time_in", "timestep"),
    *_flux_embedder("guidance_in", "guidance"),
    *_flux_embedder("vector_in", "text"),
    *_flux_stream("img", "norm1", "ff", ("to_q", "to_k", "to_v"), "to_out.0", "norm_"),
    *_flux_stream("txt", "norm1_context", "ff_context", _ADDED, "to_add_out", "norm_added_"),
    (r"single_blocks\.(\d+)\.modulation\.lin\.(.*)", r"single_transformer_blocks.\1.norm.linear.\2"),
    (r"single_blocks\.(\d+)\.linear2\.(.*)", r"single_transformer_blocks.\1.proj_out.\2"),
    (r"single_blocks\.(\d+)\.norm\.query_norm\.scale", r"single_transformer_blocks.\1.attn.norm_q.weight"),
    (r"single_blocks\.(\d+)\.norm\.key_norm\.scale", r"single_transformer_blocks.\1.attn.norm_k.weight"),
    (r"final_layer\.linear\.(.*)", r"proj_out.\1"),
)
_FLUX_FUSED = re.compile(r"single_blocks\.(\d+)\.linear1\.(weight|bias)")
_FLUX_LAST = re.compile(r"final_layer\.adaLN_modulation\.1\.(weight|bias)")

_ATTENTION = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.attn\.(\d+)\.(norm|q|k|v|proj_out)\.(weight|bias)")
_ATTENTION_PARTS = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def dit(state: Tensors, config: Mapping[str, Any]) -> Tensors:
    """A diffusion transformer of facebookresearch/DiT, for OriginalDiT.

    Raises BadFileError where its positions are others than the fixed table that the model computes.
    """
    own = dict(state)
    if _is_position_table(own.get("pos_embed"), config):
        del own["pos_embed"]
    shared = {name: own.pop(name) for name in list(own) if name.startswith(tuple(_DIT_SHARED))}
    made = _renamed(own, _DIT)
    for original, name in _DIT_SHARED.items():
        for block in range(config["num_layers"]):
            made |= {
                f"transformer_blocks.{block}.norm1.emb.{name}{each.removeprefix(original)}": value.clone()
                for each, value in shared.items()
                if each.startswith(original)
            }
    return made


def u_vit(state: Tensors, config: Mapping[str, Any]) -> Tensors:
    """A U-ViT of baofff/U-ViT, for UViTModel."""
    made = _renamed(state, _U_VIT)
    return {_HALVES.get(first := name.partition(".")[0], first) + name[len(first) :]: v for name, v in made.items()}


def flux(state: Tensors, config: Mapping[str, Any]) -> Tensors:
    """A transformer of black-forest-labs/flux, of any depth, for FluxTransformer2DModel."""
    own = dict(state)
    made: Tensors = {}
    for name in state:
        if fused := _FLUX_FUSED.fullmatch(name):
            # Queries, keys and values, and the first layer of the perceptron, in one matrix.
            width = config["num_attention_heads"] * config["attention_head_dim"]
            *attention, perceptron = own.pop(name).tensor_split((width, 2 * width, 3 * width))
            block = f"single_transformer_blocks.{fused[1]}"
            made |= {f"{block}.attn.to_{part}.{fused[2]}": each for part, each in zip("qkv", attention, strict=True)}
            made[f"{block}.proj_mlp.{fused[2]}"] = perceptron
        elif last := _FLUX_LAST.fullmatch(name):
            shift, scale = own.pop(name).tensor_split(2)  # which diffusers has the other way round
            made[f"norm_out.linear.{last[1]}"] = torch.cat([scale, shift])
    return made | _renamed(own, _FLUX)


def labelled_unet(state: Tensors, config: Mapping[str, Any]) -> Tensors:
    """The U-Net and label embedding of a CompVis/latent-diffusion checkpoint, for LabelledUNet.

    The averaged weights are taken where the checkpoint has them. A label embedding without a row for the null class
    gets one of uniform noise, as the T-Stitch authors guide their class-conditional U-Nets, which have none.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    prefix = "model.diffusion_model."
    raw = {name: value for name, value in state.items() if name.startswith(prefix)}
    averaged = {name: state.get(_average_of(name), value) for name, value in raw.items()}
    made: Tensors = convert_ldm_unet_checkpoint(averaged, {"layers_per_block": config["layers_per_block"]})
    known = {id(value) for value in made.values()}
    made |= {name: value for name, value in averaged.items() if id(value) not in known}
    labels = state.get("cond_stage_model.embedding.weight")
    if labels is not None:
        if labels.ndim == 2 and len(labels) == config["num_classes"]:
            noise = torch.rand(1, labels.shape[1], generator=torch.Generator().manual_seed(0))
            labels = torch.cat([labels, noise.to(labels.dtype)])
        made["label_embedding.weight"] = labels
    return made


def vq_autoencoder(state: Tensors, config: Mapping[str, Any]) -> Tensors:
    """The autoencoder of a CompVis/latent-diffusion checkpoint, alone or within a denoiser's, for VQModel."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    prefix = "first_stage_model."
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    own = {name: value for name, value in (inside or state).items() if not name.startswith(("loss.", "model_ema."))}
    attention = {name: own.pop(name) for name in list(own) if _ATTENTION.fullmatch(name)}
    levels = len(config["block_out_channels"])
    types = {"down_block_types": config["down_block_types"], "up_block_types": config["up_block_types"]}
    made: Tensors = convert_ldm_vae_checkpoint(own, types)
    for name, value in attention.items():
        side, level, index, part, kind = _ATTENTION.fullmatch(name).groups()  # type: ignore[union-attr]
        block = (
            f"encoder.down_blocks.{level}" if side == "encoder.down" else f"decoder.up_blocks.{levels - 1 - int(level)}"
        )
        flat = value.flatten(1) if part != "norm" and kind == "weight" else value  # 1 x 1 convolutions
        made[f"{block}.attentions.{index}.{_ATTENTION_PARTS[part]}.{kind}"] = flat
    if "quantize.embedding.weight" in own:
        made["quantize.embedding.weight"] = own["quantize.embedding.weight"]
    return made


def has_autoencoder(state: Tensors) -> bool:
    """Whether a denoiser's checkpoint holds its autoencoder as well."""
    return any(name.startswith("first_stage_model.") for name in state)


def _renamed(state: Tensors, rules: Rules) -> Tensors:
    made: Tensors = {}
    for name, value in state.items():
        found = next(((match, to) for pattern, to in rules if (match := re.fullmatch(pattern, name))), None)
        if found is None:
            made[name] = value
        elif isinstance(found[1], str):
            made[found[0].expand(found[1])] = value
        else:
            parts = value.chunk(len(found[1])) if value.ndim else ()
            made |= {found[0].expand(to): part.clone() for to, part in zip(found[1], parts, strict=False)}
    return made


def _average_of(name: str) -> str:
    """What latent diffusion calls a parameter's moving average: without its dots, which buffers may not have."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def _is_position_table(table: torch.Tensor | None, config: Mapping[str, Any]) -> bool:
    """Whether `table` may be left out because the model computes the same; raises BadFileError for another one."""
    from diffusers.models.embeddings import PatchEmbed

    side, width = config["sample_size"], config["num_attention_heads"] * config["attention_head_dim"]
    fixed = PatchEmbed(side, side, config["patch_size"], config["in_channels"], width).pos_embed
    if table is None or table.shape != fixed.shape:
        return False
    if not torch.allclose(table.float(), fixed.float(), atol=2e-3):  # half precision is coarser than float32
        raise BadFileError(
            "pos_embed is not the fixed table of sines and cosines that DiT adds to its tokens",
            hint="only denoisers of the original DiT architecture can be converted",
        )
    return True
