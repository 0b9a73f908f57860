"""The pipeline of class-conditional denoisers, in diffusers' form: labels in, pictures out."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor


class ClassConditionalPipeline(DiffusionPipeline):
    """Draws pictures of given classes with a class-conditional denoiser, an autoencoder and any scheduler.

    The denoiser is a transformer (DiT, U-ViT) or a U-Net (class-conditional latent diffusion); exactly one is given.
    Unlike diffusers' DiTPipeline it serves any number of classes (the null class is the one after the last), every
    scheduler (initial scale, own noise from the given generators) and grey pictures. Where DiTPipeline can do the
    same, the pictures are the same to the last bit; like it, and unlike the code of DiT's authors, which guides the
    first three channels only, it guides them all.
    """

    model_cpu_offload_seq = "transformer->unet->vae"
    _optional_components: ClassVar[list[str]] = ["transformer", "unet"]

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        transformer: Any = None,
        unet: Any = None,
        id2label: dict[str, str] | None = None,
    ) -> None:
        """`id2label` names the classes for whoever reads the saved pipeline, as DiTPipeline's does."""
        super().__init__()
        self.register_modules(transformer=transformer, unet=unet, vae=vae, scheduler=scheduler)
        self.register_to_config(id2label=id2label)
        self.image_processor = VaeImageProcessor(do_resize=False)

    @property
    def denoiser(self) -> Any:
        """The transformer or the U-Net, whichever this pipeline has."""
        return self.unet if self.transformer is None else self.transformer

    @torch.no_grad()
    def __call__(
        self,
        class_labels: list[int],
        guidance_scale: float = 1.5,
        num_inference_steps: int = 20,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Draws one picture a label.

        `guidance_scale` above 1 turns classifier-free guidance on (Ho & Salimans, 2022): a batch of twice the size.
        Of a denoiser with learned variance only the prediction of the mean is used.
        Returns pictures as diffusers does: PIL, "np" (B, H, W, C) in [0, 1], "pt", or "latent" (B, C, h, w).
        """
        denoiser, device = self.denoiser, self._execution_device
        config = denoiser.config
        guided = guidance_scale > 1.0
        labels = torch.tensor(class_labels, device=device)
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, _classes(config))])
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        shape = (len(class_labels), config.in_channels, config.sample_size, config.sample_size)
        x = randn_tensor(shape, generator=generator, device=device, dtype=denoiser.dtype)
        x = x * self.scheduler.init_noise_sigma
        for t in self.progress_bar(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(torch.cat([x, x]) if guided else x, t)
            predicted = denoiser(scaled, timestep=t.expand(len(scaled)), class_labels=labels).sample
            predicted = predicted[:, : config.in_channels]
            if guided:
                conditional, unconditional = predicted.chunk(2)
                predicted = unconditional + guidance_scale * (conditional - unconditional)
            x = self.scheduler.step(predicted, t, x, **extra).prev_sample
        images = x
        if output_type != "latent":
            # Times the inverse and not divided, so that every bit is as DiTPipeline has it.
            images = self.vae.decode(1 / self.vae.config.scaling_factor * x.to(self.vae.dtype)).sample
            images = self.image_processor.postprocess(images, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images)


def _classes(config: Any) -> int:
    """How many classes a denoiser knows, the null class not counted, which makes it the null class's number."""
    return config.num_classes if "num_classes" in config else config.num_embeds_ada_norm
