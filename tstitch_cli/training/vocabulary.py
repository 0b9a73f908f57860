"""A CLIP tokenizer of few words: byte-pair merges learnt from the captions, in the files CLIP's own is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

LENGTH = 16
"""Tokens of a caption, with those that begin, end and pad it."""
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(words: Iterable[str], folder: Path) -> Any:
    """Writes a CLIPTokenizer into `folder`, for which each of `words` is one token (or one between hyphens), and
    returns it; other words are spelt from smaller pieces, down to bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    pieces = sorted({piece for word in words for piece in word.replace("-", " - ").split()})
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = []
    known = {(*piece[:-1], piece[-1] + "</w>") for piece in pieces}
    while pairs := _pairs(known):
        # The commonest pair first, as byte-pair encoding learns them; ties by spelling, so that order says nothing.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        known = {_merged(word, best) for word in known}
    numbers = {token: number for number, token in enumerate([*tokens, BEGIN, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def _pairs(words: Iterable[tuple[str, ...]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for word in words:
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)
