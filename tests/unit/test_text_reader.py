"""A pipeline whose tokenizer is a processor for pictures and videos too is loaded with the tokenizer inside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from tests import toys
from tests.tiny import tiny
from tstitch_cli import components
from tstitch_cli.errors import BadFileError
from tstitch_cli.networks import random_weights
from tstitch_cli.networks.text_reader import TextReader
from tstitch_cli.zoo.entry import Entry


def qwen(folder: Path) -> None:
    """A tokenizer of Qwen2 that knows single characters."""
    characters = [chr(c) for c in range(ord("!"), ord("~") + 1)] + ["Ġ", "Ċ", "<|endoftext|>"]
    tokenizer = transformers.Qwen2Tokenizer(vocab={c: i for i, c in enumerate(characters)}, merges=[])
    tokenizer.save_pretrained(str(folder))


@pytest.fixture
def saved(tmp_path: Path) -> Entry:
    """Kandinsky at toy size in a folder, as the hub has it."""
    entry = tiny("kandinsky5-pro")
    made = random_weights.pipeline(entry, random_weights.denoiser(entry, torch.float32), torch.float32)
    folder = tmp_path / "kandinsky"
    index: dict[str, object] = {"_class_name": entry.pipeline, "tokenizer": ["transformers", "Qwen2VLProcessor"]}
    for name, part in made.components.items():
        if isinstance(part, nn.Module) or name == "scheduler":
            part.save_pretrained(str(folder / name))
            index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    qwen(folder / "tokenizer")
    (tmp_path / "clip").mkdir()
    toys.text_parts(tmp_path / "clip")["tokenizer"].save_pretrained(str(folder / "tokenizer_2"))
    index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return replace(entry, source=f"folder:{folder}", parts=f"folder:{folder}")


def test_prompts_are_encoded_by_the_tokenizer_alone(saved: Entry) -> None:
    pipeline = components.pipeline(saved, components.denoiser(saved, torch.float32), torch.float32)
    assert isinstance(pipeline.tokenizer, TextReader)
    with torch.inference_mode():
        qwen, clip, lengths = pipeline.encode_prompt(["a fox", "a small hare"], max_sequence_length=1024)
    text = [len(pipeline.prompt_template.format(prompt)) for prompt in ("a fox", "a small hare")]
    assert qwen.shape == (2, max(text) - pipeline.prompt_template_encode_start_idx, 16)
    assert clip.shape == (2, 16)
    assert lengths.diff().tolist() == [length - pipeline.prompt_template_encode_start_idx for length in text]
    assert components.text_pipeline(saved, torch.float32).tokenizer.decode([0, 1]) == '!"'


def test_a_folder_without_the_tokenizer_is_told(saved: Entry) -> None:
    folder = Path(saved.source.removeprefix("folder:"))
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    loaded = components.denoiser(saved, torch.float32)
    with pytest.raises(BadFileError, match="kandinsky5-pro cannot be loaded from"):
        components.pipeline(saved, loaded, torch.float32)


def test_sparse_attention_is_run_in_full(saved: Entry) -> None:
    """A guest that was trained without the mask would be given the host's."""
    file = Path(saved.source.removeprefix("folder:")) / "transformer" / "config.json"
    sparse = {"attention_type": "nabla", "attention_P": 0.8, "attention_wT": 11, "attention_wH": 3, "attention_wW": 3}
    file.write_text(json.dumps(json.loads(file.read_text()) | sparse))
    pipeline = components.pipeline(saved, components.denoiser(saved, torch.float32), torch.float32)
    assert pipeline.get_sparse_params(torch.zeros(1, 2, 64, 64, 33), "cpu") is None
    pipeline.transformer.register_to_config(attention_type="nabla")
    assert pipeline.get_sparse_params(torch.zeros(1, 2, 64, 64, 33), "cpu") is not None
