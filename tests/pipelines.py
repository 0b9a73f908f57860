"""Every kind of pipeline that can be stitched, tiny: the true classes with random weights, called with embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import nn

from tests import toys

SIZE = 16
STRENGTH = 0.75
DIFFUSION = ("ddim", "ddpm", "pndm", "dpm++", "dpm++-karras", "euler", "euler-a", "heun", "unipc", "lcm")
FLOW = ("flow-euler", "flow-heun", "flow-unipc", "flow-dpm++")

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}


@dataclass(frozen=True)
class Kind:
    """One kind of pipeline: how to make it around a denoiser, the denoiser itself, and what a call is given."""

    name: str
    make: Callable[[nn.Module], Any]
    denoiser: Callable[[int], nn.Module]
    component: str
    given: Callable[[], dict[str, Any]]
    samplers: tuple[str, ...] = DIFFUSION

    def draw(self, pipeline: Any, steps: int, output_type: str = "latent") -> torch.Tensor:
        """The latents of two pictures, (2, ...), drawn from the same noise every time."""
        torch.manual_seed(0)  # some pipelines (DiT, PixArt with DDPM) draw a part of their noise from here
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        output = pipeline(**self.given(), num_inference_steps=steps, generator=generators, output_type=output_type)
        drawn: Any = output.frames if hasattr(output, "frames") else output.images
        return drawn if isinstance(drawn, torch.Tensor) else torch.as_tensor(drawn)


def scheduler() -> Any:
    return diffusers.DDIMScheduler(**NOISE, steps_offset=1)


def flow_scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


def _embeddings(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int = 7, size: int = SIZE) -> Image.Image:
    """A colourful picture."""
    pixels = torch.randint(0, 256, (size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy(), "RGB")


def mask(size: int = SIZE) -> Image.Image:
    """The left half is to be drawn."""
    image = Image.new("L", (size, size), 0)
    image.paste(255, (0, 0, size // 2, size))
    return image


def made(name: str, **parts: Any) -> Any:
    """A pipeline of diffusers from its parts; those not given are None."""
    cls = getattr(diffusers, name)
    accepted = inspect.signature(cls.__init__).parameters
    missing = {
        part: None
        for part in accepted
        if any(part.startswith(word) for word in ("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    }
    if "requires_safety_checker" in accepted:
        parts["requires_safety_checker"] = False
    pipeline = cls(**(missing | parts))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- U-Nets ---


def controlnet(unet: Any) -> Any:
    torch.manual_seed(9)
    net: Any = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 4), load_weights_from_unet=False
    )
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out):
        nn.init.normal_(block.weight, std=0.1)  # zero as built: a control that controls nothing
    return net.eval()


def unet_xl(seed: int) -> Any:
    return toys.tiny_unet(
        seed,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def unet_lcm(seed: int) -> Any:
    return toys.tiny_unet(seed, time_cond_proj_dim=8)


def _unet_pipeline(name: str, controlled: bool = False) -> Callable[[nn.Module], Any]:
    def make(unet: nn.Module) -> Any:
        parts = {"controlnet": controlnet(unet)} if controlled else {}
        return made(name, vae=toys.tiny_vae(3), unet=unet, scheduler=scheduler(), **parts)

    return make


def _sd() -> dict[str, Any]:
    embeddings = _embeddings(5, 2, 3, 8)
    return {"prompt_embeds": embeddings, "negative_prompt_embeds": torch.zeros_like(embeddings), "guidance_scale": 7.5}


def _sized() -> dict[str, Any]:
    return {"height": SIZE, "width": SIZE}


def _xl() -> dict[str, Any]:
    pooled = _embeddings(6, 2, 8)
    return _sd() | {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": torch.zeros_like(pooled)}


def _image() -> dict[str, Any]:
    return {"image": [picture(), picture(8)], "strength": STRENGTH}


def _masked() -> dict[str, Any]:
    return _image() | {"mask_image": [mask(), mask()]} | _sized()


def _lcm() -> dict[str, Any]:
    return {"prompt_embeds": _embeddings(5, 2, 3, 8), "guidance_scale": 8.5, **_sized()}


# --- transformers ---


def dit(seed: int) -> Any:
    return toys.tiny_dit(seed, classes=1000)


def _dit_pipeline(transformer: nn.Module) -> Any:
    return made("DiTPipeline", transformer=transformer, vae=toys.tiny_vae(3), scheduler=scheduler())


def _alone(name: str, vae: Callable[[], nn.Module], noise: Callable[[], Any]) -> Callable[[nn.Module], Any]:
    return lambda transformer: made(name, transformer=transformer, vae=vae(), scheduler=noise())


def pixart(seed: int, depth: int = 1) -> Any:
    torch.manual_seed(seed)
    return diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=depth,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        use_additional_conditions=False,
    ).eval()


def _pixart() -> dict[str, Any]:
    embeddings, attended = _embeddings(5, 2, 3, 8), torch.ones(2, 3)
    return {
        "prompt_embeds": embeddings,
        "prompt_attention_mask": attended,
        "negative_prompt": None,
        "negative_prompt_embeds": torch.zeros_like(embeddings),
        "negative_prompt_attention_mask": attended,
        "use_resolution_binning": False,
        **_sized(),
    }


def sana(seed: int, depth: int = 1, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=depth,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
        **changes,
    ).eval()


def sana_sprint(seed: int) -> Any:
    return sana(seed, qk_norm="rms_norm_across_heads", guidance_embeds=True)


def _sana() -> dict[str, Any]:
    return _pixart() | {"height": 32, "width": 32}  # SanaPipeline takes multiples of 32 only


def _sana_vae() -> Any:
    torch.manual_seed(3)
    return diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()


def _sana_sprint() -> dict[str, Any]:
    given = {name: value for name, value in _sana().items() if "negative" not in name}
    return given | {"intermediate_timesteps": None}  # a choice that there is with two steps alone


def sd3(seed: int, channels: int = 4) -> Any:
    torch.manual_seed(seed)
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        out_channels=channels,
        pos_embed_max_size=16,
    ).eval()


def flux(seed: int) -> Any:
    torch.manual_seed(seed)
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    ).eval()


def _flux() -> dict[str, Any]:
    return {
        "prompt_embeds": _embeddings(5, 2, 3, 8),
        "pooled_prompt_embeds": _embeddings(6, 2, 8),
        "guidance_scale": 3.5,
        **_sized(),
    }


def _true_guidance() -> dict[str, Any]:
    return {
        "negative_prompt_embeds": torch.zeros(2, 3, 8),
        "negative_pooled_prompt_embeds": torch.zeros(2, 8),
        "true_cfg_scale": 4.0,
    }


def flux2(seed: int, depth: int = 1) -> Any:
    torch.manual_seed(seed)
    return diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=depth,
        num_single_layers=depth,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=8,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    ).eval()


def _flux2_vae() -> Any:
    torch.manual_seed(3)
    return diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4
    ).eval()


def _flux2() -> dict[str, Any]:
    embeddings = _embeddings(5, 2, 3, 8)
    return {
        "prompt_embeds": embeddings,
        "negative_prompt_embeds": torch.zeros_like(embeddings),
        "guidance_scale": 4.0,
        "height": 32,
        "width": 32,
    }


def kandinsky(seed: int, depth: int = 1) -> Any:
    torch.manual_seed(seed)
    model = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=8,
        in_text_dim2=8,
        time_dim=16,
        model_dim=16,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=depth,
        axes_dims=(4, 2, 2),
        visual_cond=True,
    )
    for name, parameter in model.named_parameters():
        if "modulation" in name:
            nn.init.normal_(parameter, std=0.1)  # zero as built: neither text nor attention would count
    return model.eval()


def _kandinsky_vae() -> Any:
    torch.manual_seed(3)
    return diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4
    ).eval()


def _kandinsky() -> dict[str, Any]:
    return {
        "prompt_embeds_qwen": _embeddings(5, 2, 3, 8),
        "prompt_embeds_clip": _embeddings(6, 2, 8),
        "prompt_cu_seqlens": torch.tensor([0, 3, 6]),
        "negative_prompt_embeds_qwen": _embeddings(7, 2, 2, 8),
        "negative_prompt_embeds_clip": torch.zeros(2, 8),
        "negative_prompt_cu_seqlens": torch.tensor([0, 2, 4]),
        "num_frames": 5,
        **_sized(),
    }


def wan(seed: int) -> Any:
    torch.manual_seed(seed)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()


def _wan_vae() -> Any:
    torch.manual_seed(3)
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        scale_factor_temporal=2,
        scale_factor_spatial=2,
    ).eval()


def _wan() -> dict[str, Any]:
    embeddings = _embeddings(5, 2, 3, 8)
    return {
        "prompt_embeds": embeddings,
        "negative_prompt_embeds": torch.zeros_like(embeddings),
        "num_frames": 5,
        **_sized(),
    }


def cogvideox(seed: int, depth: int = 1) -> Any:
    torch.manual_seed(seed)
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=depth,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=3,
        use_rotary_positional_embeddings=True,
    ).eval()


def _cogvideox_vae() -> Any:
    torch.manual_seed(3)
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4, scaling_factor=0.7
    ).eval()


def _cogvideox_scheduler() -> Any:
    return diffusers.CogVideoXDDIMScheduler(
        **NOISE,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )


def _vae() -> Any:
    return toys.tiny_vae(3)


def _shifted_vae(channels: int = 4) -> Any:
    torch.manual_seed(3)
    vae = diffusers.AutoencoderKL.from_config({**_vae().config, "latent_channels": channels}).eval()
    vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    return vae


_SD, _XL = "StableDiffusion", "StableDiffusionXL"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("sd", _unet_pipeline(f"{_SD}Pipeline"), toys.tiny_unet, "unet", lambda: _sd() | _sized()),
        Kind("xl", _unet_pipeline(f"{_XL}Pipeline"), unet_xl, "unet", lambda: _xl() | _sized()),
        Kind("sd-image", _unet_pipeline(f"{_SD}Img2ImgPipeline"), toys.tiny_unet, "unet", lambda: _sd() | _image()),
        Kind("xl-image", _unet_pipeline(f"{_XL}Img2ImgPipeline"), unet_xl, "unet", lambda: _xl() | _image()),
        Kind("sd-inpaint", _unet_pipeline(f"{_SD}InpaintPipeline"), toys.tiny_unet, "unet", lambda: _sd() | _masked()),
        Kind("xl-inpaint", _unet_pipeline(f"{_XL}InpaintPipeline"), unet_xl, "unet", lambda: _xl() | _masked()),
        Kind(
            "sd-control",
            _unet_pipeline(f"{_SD}ControlNetPipeline", controlled=True),
            toys.tiny_unet,
            "unet",
            lambda: _sd() | _sized() | {"image": [picture(), picture(8)]},
        ),
        Kind(
            "xl-control",
            _unet_pipeline(f"{_XL}ControlNetPipeline", controlled=True),
            unet_xl,
            "unet",
            lambda: _xl() | _sized() | {"image": [picture(), picture(8)]},
        ),
        Kind("lcm", _unet_pipeline("LatentConsistencyModelPipeline"), unet_lcm, "unet", _lcm, ("lcm",)),
        Kind(
            "dit",
            _dit_pipeline,
            dit,
            "transformer",
            lambda: {"class_labels": [1, 2]},
        ),
        Kind("pixart", _alone("PixArtSigmaPipeline", _vae, scheduler), pixart, "transformer", _pixart),
        Kind("sana", _alone("SanaPipeline", _sana_vae, flow_scheduler), sana, "transformer", _sana, FLOW),
        Kind(
            "sana-sprint",
            _alone("SanaSprintPipeline", _sana_vae, lambda: diffusers.SCMScheduler()),
            sana_sprint,
            "transformer",
            _sana_sprint,
            ("scm",),
        ),
        Kind(
            "sd3",
            _alone("StableDiffusion3Pipeline", _shifted_vae, flow_scheduler),
            sd3,
            "transformer",
            lambda: _xl() | _sized(),
            FLOW,
        ),
        Kind(
            "sd3-image",
            _alone("StableDiffusion3Img2ImgPipeline", _shifted_vae, flow_scheduler),
            sd3,
            "transformer",
            lambda: _xl() | _sized() | _image(),
            ("flow-euler", "flow-heun"),  # the others cannot add noise as flow matching does
        ),
        Kind(
            "flux",
            _alone("FluxPipeline", _shifted_vae, flow_scheduler),
            flux,
            "transformer",
            _flux,
            ("flow-euler", "flow-unipc"),
        ),
        Kind(
            "flux-true-guidance",
            _alone("FluxPipeline", _shifted_vae, flow_scheduler),
            flux,
            "transformer",
            lambda: _flux() | _true_guidance(),
            ("flow-euler",),
        ),
        Kind(
            "flux-image",
            _alone("FluxImg2ImgPipeline", _shifted_vae, flow_scheduler),
            flux,
            "transformer",
            lambda: _flux() | _image(),
            ("flow-euler",),
        ),
        Kind(
            "sd3-inpaint",
            _alone("StableDiffusion3InpaintPipeline", lambda: _shifted_vae(16), flow_scheduler),
            lambda seed: sd3(seed, 16),  # the only count that this pipeline takes
            "transformer",
            lambda: _xl() | _masked(),
            ("flow-euler",),
        ),
        Kind(
            "flux-inpaint",
            _alone("FluxInpaintPipeline", _shifted_vae, flow_scheduler),
            flux,
            "transformer",
            lambda: _flux() | _masked(),
            ("flow-euler",),
        ),
        Kind(
            "flux2",
            _alone("Flux2KleinPipeline", _flux2_vae, flow_scheduler),
            flux2,
            "transformer",
            _flux2,
            ("flow-euler", "flow-unipc"),
        ),
        Kind(
            "kandinsky",
            _alone("Kandinsky5T2VPipeline", _kandinsky_vae, flow_scheduler),
            kandinsky,
            "transformer",
            _kandinsky,
            ("flow-euler", "flow-dpm++"),
        ),
        Kind(
            "cogvideox",
            _alone("CogVideoXPipeline", _cogvideox_vae, _cogvideox_scheduler),
            cogvideox,
            "transformer",
            lambda: _wan() | {"guidance_scale": 6.0},
            ("cogvideox-ddim", "cogvideox-dpm++", "ddim", "dpm++"),
        ),
        Kind("wan", _alone("WanPipeline", _wan_vae, flow_scheduler), wan, "transformer", _wan, FLOW),
    )
}
"""By name; every one draws two pictures at once."""
