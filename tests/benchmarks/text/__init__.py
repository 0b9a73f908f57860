"""The text report: the paper's text-to-image experiments in miniature, on the bundled miniature of Stable Diffusion."""
