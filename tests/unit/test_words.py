"""What is told of the words in a prompt that a denoiser of few words does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import planned
from tests.toys import FakeClock, family
from tstitch_cli.errors import BadFileError
from tstitch_cli.schema import PlannedDenoiser
from tstitch_cli.zoo.entry import Conditioning, Entry
from tstitch_cli.zoo.registry import Zoo
from tstitch_cli.zoo.words import remark, remark_on, unknown

WORDS = ("a", "red", "sneaker", "sneakers", "t-shirt", "background", "on", "blue")


@pytest.fixture
def entry() -> Entry:
    sd = Zoo.shipped().entries["sd14"]
    return replace(sd, name="few", conditioning=replace(sd.conditioning, words=WORDS))


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a red sneaker on a blue background", ()),
        ("A RED T-Shirt, on blue!", ()),
        ("red-blue sneaker", ()),
        ("a dinosaur on a red sofa", ("dinosaur", "sofa")),
        ("t-rex", ("t-rex",)),
        ("2 sneakers, café, 猫 🦊", ("2", "café", "猫", "🦊")),
        ("a red sneaker 🦊", ("🦊",)),
        ("a 🦊red☕sneaker🦊 on ❤️, €", ("🦊", "☕", "❤", "€")),
        ("a thumb 👍🏽 and 👩\u200d🦰", ("thumb", "👍", "and", "👩", "🦰")),
        ("red, red. red! red? 'red' \"red\" (red) - red: red; red/red & _red_", ()),
        ("“red” – ‘blue’… 「a」、 *red* #red\ta\n[on] {blue} `a` ^", ()),
        ("", ()),
    ],
)
def test_words_that_no_caption_had(entry: Entry, prompt: str, left: tuple[str, ...]) -> None:
    assert unknown(entry, [prompt]) == left


def test_each_word_is_told_once_with_the_near_one_and_those_there_are(entry: Entry) -> None:
    told = remark(entry, ["a sneeker", "a dinosaur", "another dinosaur"])
    assert told is not None
    assert told.startswith("few was trained on few words and does not know 'sneeker' (did you mean 'sneaker'?), ")
    assert told.count("dinosaur") == 1
    assert told.endswith("its words are a, red, sneaker, t-shirt, background, on, blue and plurals")
    assert remark(entry, ["a red sneaker"]) is None
    assert "does not know '🦊': what it draws for it may be" in str(remark(entry, ["a red sneaker 🦊"]))
    assert "did you mean" not in str(remark(entry, ["red and blue, one sneaker"]))


def test_many_and_endless_words_make_no_endless_remark(entry: Entry) -> None:
    told = remark(entry, [" ".join(f"x{i}" * 5000 for i in range(50))])
    assert told is not None
    assert "and 42 more" in told
    assert len(told) < 1000


def test_any_word_will_do_where_the_zoo_names_none() -> None:
    assert unknown(Zoo.shipped().entries["sd14"], ["a dinosaur"]) == ()


def test_a_plan_is_told_of_by_its_largest_denoiser_that_has_a_name(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Zoo, "load", lambda: Zoo({"few": entry}))
    few, other = PlannedDenoiser("few", entry.source, None), PlannedDenoiser("other", "hub:models/other", None)
    told = remark_on(replace(planned(), denoisers=(few, other)), ["a dinosaur"])
    assert told is not None
    assert "'dinosaur'" in told
    assert remark_on(replace(planned(), denoisers=(replace(few, source="hub:some/few"), other)), ["a dinosaur"]) is None


def test_words_and_examples_in_a_zoo_file_are_for_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.yaml"
    text = "schema: tstitch/zoo/1\ndenoisers:\n  mine:\n    family: {}\n    source: hub:a/b\n    conditioning: {}\n"
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    path.write_text(text.format("stable-diffusion", "{kind: text, width: 768, words: [a, fox], examples: [a fox]}"))
    assert Zoo.load().entries["mine"].conditioning.words == ("a", "fox")
    assert Zoo.load().entries["mine"].conditioning.examples == ("a fox",)
    path.write_text(text.format("fashion", "{kind: class, labels: [a, b], words: [a, fox], examples: [a fox]}"))
    with pytest.raises(BadFileError, match=r"words: are for text(?s:.*)examples: are for text"):
        Zoo.load()


def test_what_is_measured_with_are_the_zoos_examples() -> None:
    toy = family(FakeClock(), {"small": 1.0, "large": 2.0})
    plain = tuple(replace(entry, conditioning=Conditioning("text")) for entry in toy.entries)
    told = tuple(replace(entry, conditioning=Conditioning("text", examples=("a fox", "a hen"))) for entry in plain)
    assert replace(toy, entries=told).example_prompts(3, 1) == ("a hen", "a fox", "a hen")
    assert "lighthouse" in replace(toy, entries=plain).example_prompts(1)[0]
