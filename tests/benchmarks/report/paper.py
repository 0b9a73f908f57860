"""The published figures that ours stand beside (arXiv 2402.14167): DiT on ImageNet 256, RTX 3090, FID of 5,000."""

from __future__ import annotations

FRACTIONS = tuple(tenths / 10 for tenths in range(11))
S_THEN_XL = (9.20, 9.17, 8.99, 9.03, 8.95, 10.06, 12.46, 18.04, 25.44, 30.11, 33.46)
"""FID by the share of the steps that DiT-S takes before DiT-XL; DDIM, 100 steps, guidance 1.5."""
ALONE = {"S": (1.6, 33.46), "B": (4.0, 12.30), "XL": (16.5, 9.2)}
"""Seconds of 8 pictures, FID."""
FREE = 0.4
"""The share of the first steps that the small model takes at no cost."""
THREE_MODELS_FASTER = 1.7
"""How much faster the best of the 66 rows of S, B and XL is at the large model's FID: 9.21 against 9.19."""
