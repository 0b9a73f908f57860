"""What is told of prompts that are longer than the text encoder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import toys
from tstitch_cli.truncation import remarks


class Reads:
    """A pipeline of tokenizers alone, called as those of CLIP are."""

    def __init__(self, **parts: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, prompt: list[str]) -> None:
        """Draws nothing."""


class ReadsFirst(Reads):
    """As those of T5 are."""

    def __call__(self, prompt: list[str], max_sequence_length: int = 12) -> None:
        """Draws nothing."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One token a letter."""
    made = toys.text_parts(tmp_path_factory.mktemp("tokenizer"))["tokenizer"]
    made.model_max_length = 20
    return made


def test_what_is_left_out_is_told(tokenizer: Any) -> None:
    short, long = "a red fox", "a red fox in the deep snow"
    told = remarks(Reads(tokenizer=tokenizer), [short, long, long])
    assert told == (f"the prompt '{long}' has 22 tokens and the text encoder reads 20: 'ow' is left out",)


def test_a_prompt_that_just_fits_is_read(tokenizer: Any) -> None:
    assert remarks(Reads(tokenizer=tokenizer), ["a" * 18]) == ()
    assert len(remarks(Reads(tokenizer=tokenizer), ["a" * 19])) == 1


def test_the_pipelines_own_limit_counts_where_it_has_one(tokenizer: Any) -> None:
    assert remarks(ReadsFirst(tokenizer=tokenizer), ["a" * 10]) == ()
    assert "reads 12" in remarks(ReadsFirst(tokenizer=tokenizer), ["a" * 11])[0]


def test_of_several_the_one_that_reads_most_counts(tokenizer: Any, tmp_path: Path) -> None:
    longer = toys.text_parts(tmp_path)["tokenizer"]
    assert longer.model_max_length == 77
    both = Reads(tokenizer=tokenizer, tokenizer_2=longer)
    assert remarks(both, ["a" * 50]) == ()
    assert len(remarks(both, ["a" * 80])) == 1


def test_where_there_is_no_text_there_is_nothing_to_tell() -> None:
    assert remarks(Reads(), ["sneaker"]) == ()
    assert remarks(Reads(tokenizer=None), ["sneaker"]) == ()
