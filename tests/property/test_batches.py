"""Shards partition exactly, and prompts files are read as they were written or refused, whatever is in them."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tstitch_cli.errors import BadFileError
from tstitch_cli.jobs import prompts
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request, batches
from tstitch_cli.jobs.shards import Shard, parse
from tstitch_cli.schema import MAX_SEED

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip).map(str.strip)
written = st.lists(
    st.builds(
        Prompt,
        texts,
        st.none() | st.integers(0, MAX_SEED),
        st.none() | texts,
        st.none() | st.integers(1, prompts.MAX_PICTURES),
    ),
    max_size=8,
)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.none() | st.just("dull")), min_size=1, max_size=12),
    st.integers(1, 9),
    st.integers(1, 40),
)
def test_shards_partition_the_batches_exactly(counts: list[tuple[int, str | None]], size: int, shards: int) -> None:
    asked = tuple(Prompt(str(i), count=count, negative_prompt=dull) for i, (count, dull) in enumerate(counts))
    request = Request(asked, Path())
    whole = batches(request.pictures, size)
    shares = [Request(asked, Path(), shard=Shard(i, shards)).batches(size) for i in range(1, shards + 1)]
    assert sorted(batch[0].index for share in shares for batch in share) == sorted(batch[0].index for batch in whole)
    assert {batch for share in shares for batch in share} == set(whole)
    assert sorted(picture.index for batch in whole for picture in batch) == list(range(sum(n for n, _ in counts)))
    assert all(len({picture.negative_prompt for picture in batch}) == 1 for batch in whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert parse(f"{shards}/{shards}") == Shard(shards, shards)


def as_json_lines(asked: list[Prompt]) -> str:
    keys = {"text": "prompt", "seed": "seed", "negative_prompt": "negative_prompt", "count": "count"}
    return "".join(json.dumps({keys[name]: value for name, value in vars(p).items()}) + "\n" for p in asked)


def as_csv(asked: list[Prompt]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["count", "prompt", "negative_prompt", "seed"])
    writer.writerows([p.count, p.text, p.negative_prompt, p.seed] for p in asked)
    return text.getvalue()


@given(written)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, asked: list[Prompt]) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name, text in (("p.jsonl", as_json_lines(asked)), ("p.csv", as_csv(asked))):
        (folder / name).write_text(text, encoding="utf-8", newline="")
        assert prompts.read(folder / name) == tuple(asked)
    (folder / "p.txt").write_text("\n\r\n".join(p.text for p in asked), encoding="utf-8", newline="")
    assert prompts.read(folder / "p.txt") == tuple(Prompt(p.text) for p in asked)


@given(st.sampled_from(["jsonl", "csv", "txt"]), st.binary(max_size=200))
def test_anything_else_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(content)
    with suppress(BadFileError):
        assert all(prompt.text for prompt in prompts.read(path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "sede": 3, "style": 1}\n', [":2: the column 'sede'", "'style'"]),
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}\n', [":1: ", "stands twice"]),
        ("p.jsonl", '\n\n["a"]\n', [":3: an object was expected"]),
        ("p.jsonl", '{"prompt": "a", "seed": -1}\n{"prompt": 4}', [":1: seed: '-1'", ":2: prompt: some text"]),
        ("p.jsonl", '{"prompt": "a", "seed": true}', ["seed: 'True' is no whole number"]),
        ("p.jsonl", '{"prompt": "a", "count": 1.0}', ["count: '1.0'"]),
        ("p.jsonl", '{"prompt": "\\ud800"}', ["surrogate"]),
        ("p.jsonl", '{"prompt": "a", "negative_prompt": ["b"]}', ["negative_prompt: \"['b']\" is no text"]),
        ("p.csv", "prompt,sede\na,3\n", [":1: the column 'sede' is not known: there are prompt, seed"]),
        ("p.csv", "prompt,prompt\na,3\n", ["'prompt' stands twice"]),
        ("p.csv", "text\na\n", ["there is no column 'prompt'"]),
        ("p.csv", "prompt,seed\n\na\n", [":3: has 1 cells, the header 2"]),
        ("p.csv", 'prompt,seed\n"a\nb",x\n', [":3: seed: 'x'"]),
        ("p.csv", "prompt,count\na,0\nb,1000001\n", [":2: count: '0'", ":3: count: '1000001'"]),
        ("p.csv", "prompt,seed\n,3\n", [":2: prompt: some text is wanted"]),
        ("p.csv", 'prompt\n"a"b\n', ["is not readable as CSV"]),
    ],
)
def test_every_fault_is_told_with_its_line(tmp_path: Path, name: str, content: str, told: list[str]) -> None:
    (tmp_path / name).write_text(content, newline="")
    with pytest.raises(BadFileError) as caught:
        prompts.read(tmp_path / name)
    for what in told:
        assert what in caught.value.message


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_BYTES", 10)
    (tmp_path / "p.txt").write_text("a" * 11)
    with pytest.raises(BadFileError, match="is larger than"):
        prompts.read(tmp_path / "p.txt")
    faults: Any = "\n".join("{}" for _ in range(10))
    monkeypatch.undo()
    (tmp_path / "p.jsonl").write_text(faults * 3)
    with pytest.raises(BadFileError) as caught:
        prompts.read(tmp_path / "p.jsonl")
    assert caught.value.message.count("\n") == 9


def test_json_lines_by_their_other_ending(tmp_path: Path) -> None:
    (tmp_path / "p.ndjson").write_text('{"prompt": "bag", "seed": 4}\n')
    assert prompts.read(tmp_path / "p.ndjson") == (Prompt("bag", 4),)


@pytest.mark.parametrize("ending", [".json", ".JSON", ".tsv"])
def test_forms_that_are_not_read_are_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"p{ending}"
    path.write_text("bag\n")
    with pytest.raises(BadFileError, match="no form that prompts are read in") as caught:
        prompts.read(path)
    assert "call it" in (caught.value.hint or "")


def test_json_lines_that_go_by_text_are_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text('bag\n {"prompt": "dress"}\n')
    with pytest.raises(BadFileError, match=r"p\.txt:2: is a JSON object"):
        prompts.read(path)
    path.write_text("{a red} bag\n{}\n[1]\n")
    assert [prompt.text for prompt in prompts.read(path)] == ["{a red} bag", "{}", "[1]"]
