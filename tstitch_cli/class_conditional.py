"""The pipeline of class-conditional denoisers, in diffusers' form: labels in, pictures out."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor


class ClassConditionalPipeline(DiffusionPipeline):
    """Draws pictures of given classes with a class-conditional transformer, an autoencoder and any scheduler.

    Unlike diffusers' DiTPipeline it serves any number of classes (the null class is the one after the last), every
    scheduler (initial scale, own noise from the given generators) and grey pictures.
    """

    model_cpu_offload_seq = "transformer->vae"

    def __init__(self, transformer: Any, vae: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)
        self.image_processor = VaeImageProcessor(do_resize=False)

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
        Returns pictures as diffusers does: PIL, "np" (B, H, W, C) in [0, 1], "pt", or "latent" (B, C, h, w).
        """
        device, config = self._execution_device, self.transformer.config
        guided = guidance_scale > 1.0
        labels = torch.tensor(class_labels, device=device)
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, config.num_embeds_ada_norm)])
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if takes_generator else {}
        shape = (len(class_labels), config.in_channels, config.sample_size, config.sample_size)
        x = randn_tensor(shape, generator=generator, device=device, dtype=self.transformer.dtype)
        x = x * self.scheduler.init_noise_sigma
        for t in self.progress_bar(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(torch.cat([x, x]) if guided else x, t)
            predicted = self.transformer(scaled, timestep=t.expand(len(scaled)), class_labels=labels).sample
            predicted = predicted[:, : config.in_channels]
            if guided:
                conditional, unconditional = predicted.chunk(2)
                predicted = unconditional + guidance_scale * (conditional - unconditional)
            x = self.scheduler.step(predicted, t, x, **extra).prev_sample
        images = x
        if output_type != "latent":
            images = self.vae.decode(x.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
            images = self.image_processor.postprocess(images, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images)
