"""Networks that diffusers has not, and what turns original checkpoints into diffusers' folders."""
