"""Strict reading, canonical writing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tests.builders import measured, planned
from tstitch_cli.documents import (
    MAX_BYTES,
    digest,
    parse,
    plain,
    read_plan,
    read_profile,
    render,
    write_plan,
    write_profile,
)
from tstitch_cli.errors import BadFileError
from tstitch_cli.formats.consistency import faults_of_plan, faults_of_profile
from tstitch_cli.schema import MAX_SEED, PLAN_SCHEMA, PROFILE_SCHEMA


@dataclass(frozen=True)
class Inner:
    x: float
    y: float = 2.0


@dataclass(frozen=True)
class Thing:
    name: str
    count: int = 1
    share: float = 0.5
    on: bool = False
    note: str | None = None
    either: str | int = 0
    kind: Literal["epsilon", "v"] = "v"
    pair: tuple[str, int] = ("a", 1)
    many: tuple[Inner, ...] = ()
    table: dict[str, float] | None = None


def thing(text: str) -> Thing:
    return parse(text, "thing.yaml", Thing, None)


def faults(text: str) -> list[str]:
    with pytest.raises(BadFileError) as caught:
        thing(text)
    return caught.value.message.splitlines()


def test_every_type() -> None:
    text = """
    name: x
    count: -3
    share: 1
    on: true
    note: null
    either: 7
    kind: epsilon
    pair: [b, 2]
    many: [{x: 1.5}, {x: .5, y: 3}]
    table: {a: 1e-3, 12:30: 2}
    """
    expected = Thing(
        "x", -3, 1.0, True, None, 7, "epsilon", ("b", 2), (Inner(1.5), Inner(0.5, 3.0)), {"a": 0.001, "12:30": 2.0}
    )
    assert thing(text) == expected
    assert thing(f"{{name: x, count: {MAX_SEED}}}").count == MAX_SEED


@pytest.mark.parametrize("word", ["no", "yes", "on", "12:30", "1e-3", "0x10", "true", "2025-01-31", "007", "1_000"])
def test_text_is_never_guessed_to_be_something_else(word: str) -> None:
    assert thing(f"name: {word}").name == word


def test_a_number_is_read_as_one_however_it_is_written() -> None:
    for written in ("1e-3", "1.0e-03", "0.001", "+.001"):
        assert thing(f"{{name: a, share: {written}}}").share == 0.001


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("count: 1.5", "thing.yaml:2:8 count: expected a whole number, found 1.5"),
        ("count: '3'", 'thing.yaml:2:8 count: expected a whole number, found the text "3"'),
        ("count: 010", "thing.yaml:2:8 count: expected a whole number, found 010"),
        ("count: 99999999999999999999", "thing.yaml:2:8 count: expected a whole number, found 99999999999999999999"),
        (f"count: {2**63}", f"thing.yaml:2:8 count: expected a whole number, found {2**63}"),
        ("share: .nan", "thing.yaml:2:8 share: expected a finite number, found .nan"),
        ("share: -inf", "thing.yaml:2:8 share: expected a finite number, found -inf"),
        ("share: 1e999", "thing.yaml:2:8 share: expected a finite number, found 1e999"),
        ("share: 12:30", "thing.yaml:2:8 share: expected a number, found 12:30"),
        ("share: 1_0", "thing.yaml:2:8 share: expected a number, found 1_0"),
        ("share:", "thing.yaml:2:7 share: expected a number, found nothing"),
        ("on: yes", "thing.yaml:2:5 on: expected true or false, found yes"),
        ("kind: epsilom", "thing.yaml:2:7 kind: epsilom is not known, did you mean epsilon?"),
        ("pair: [a]", "thing.yaml:2:7 pair: expected 2 values, found 1"),
        ("pair: a", "thing.yaml:2:7 pair: expected a list, found a"),
        ("many: [{x: 1}, {y: 1}]", "thing.yaml:2:16 many[1].x: is missing"),
        ("table: [1]", "thing.yaml:2:8 table: expected keys and values, found a list"),
        ("table: {a: b}", "thing.yaml:2:12 table.a: expected a number, found b"),
        ("cuont: 3", "thing.yaml:2:1 cuont: unknown key, did you mean count?"),
        ("name: b", "thing.yaml:2:1 name: stands here a second time"),
        ("table: {a: 1, a: 2}", "thing.yaml:2:15 table.a: stands here a second time"),
        ("note: &x a", "thing.yaml:2:7 &x: anchors are not allowed, write the value out"),
        ("note: *x", "thing.yaml:2:7 *x: aliases are not allowed, write the value out"),
        ("note: !!python/object:os.system a", None),
        ("? [a]\n: b", "thing.yaml:2:3 a key must be a single word or text"),
        ("note: [a", None),
        ("---\nname: b", None),
    ],
)
def test_each_fault_says_where_and_what(line: str, fault: str | None) -> None:
    found = faults(f"name: a\n{line}\n")
    assert len(found) == 1
    assert fault is None or found[0] == fault
    assert found[0].startswith("thing.yaml:")


def test_all_faults_at_once_in_order() -> None:
    found = faults("count: x\nshare: y\nmany: [{x: no}, 3]\nnmae: a\n")
    assert [line.split(" ")[0] for line in found] == [
        f"thing.yaml:{at}" for at in ("1:1", "1:8", "2:8", "3:12", "3:17", "4:1")
    ]


def test_many_faults_are_counted() -> None:
    found = faults(f"name: a\nmany: [{', '.join(['1'] * 500)}]")
    assert len(found) == 21
    assert found[-1] == "... and 480 more"


@pytest.mark.parametrize("text", ["", "   \n", "# nothing\n", "---\n"])
def test_empty(text: str) -> None:
    assert faults(text) == ["thing.yaml: is empty"]


@pytest.mark.parametrize("text", ["[a, b]", "just text", "3", "\x00", "a: \x07", "name: '\ud800'", "\t- a"])
def test_other_text_is_refused(text: str) -> None:
    assert faults(text)


def test_nesting_is_capped_without_exhausting_the_stack() -> None:
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 10_000):
        assert "nested deeper" in faults(text)[0]


def test_a_broken_file_shows_no_control_characters() -> None:
    assert "\x1b" not in faults('name: a\ncount: "\\e[31m"')[0]


def test_round_trip() -> None:
    profile, plan = measured(), planned(top=3)
    assert parse(render(profile, PROFILE_SCHEMA), "p", type(profile), PROFILE_SCHEMA) == profile
    assert parse(render(plan, PLAN_SCHEMA), "p", type(plan), PLAN_SCHEMA) == plan


def test_other_readers_see_the_same() -> None:
    plan = planned()
    loaded = yaml.safe_load(render(plan, PLAN_SCHEMA))
    assert loaded == {"schema": PLAN_SCHEMA, **plain(plan)}


def test_a_row_reads_well() -> None:
    lines = render(planned(), PLAN_SCHEMA).splitlines()
    assert lines[0] == "schema: tstitch/plan/1"
    at = lines.index("rows:")
    assert lines[at + 1] == "  - fractions: {small: 1.0, base: 0.0, large: 0.0}"
    assert lines[at + 3] == "    allocation: [[small, 20]]"


def test_none_is_left_out_where_it_is_the_default() -> None:
    assert "table" not in render(Thing("a"), "x/1")
    assert "table" not in plain(Thing("a"))
    assert "quantile: null" in render(replace(planned(), budget=replace(planned().budget, quantile=None)), PLAN_SCHEMA)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        render(Thing("a", share=value), "x/1")


@pytest.mark.parametrize(
    "text",
    ["", "no", "null", "~", "1e-3", "a: b", "a #b", "'", '"', "\\", "\n", "\t", "\x00", "\x85", "\u2028", "\ufeff", "é",
     "日本", "🦊", "- a", "[a]", "{a}", "&a", "*a", "!a", "%a", "@a", "`a", "a,b", " a ", "---", "...", "=", "<<", "y"],
)  # fmt: skip
def test_any_text_comes_back_as_value_and_as_key(text: str) -> None:
    value = Thing(text, note=text, table={text: 1.0, text + "x": 2.0})
    assert thing(render(value, "x/1").partition("\n")[2]) == value


def test_speed() -> None:
    text = render(planned(), PLAN_SCHEMA)
    best = 9.0
    for _ in range(5):
        began = time.perf_counter()
        plan = parse(text, "p", type(planned()), PLAN_SCHEMA)
        render(plan, PLAN_SCHEMA)
        best = min(best, time.perf_counter() - began)
    assert best < 0.2  # both together; a quiet machine needs 0.02


# Files.


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "plan.yaml"
    write_plan(planned(), path, overwrite=False)
    assert read_plan(path) == planned()
    assert os.listdir(path.parent) == ["plan.yaml"]
    assert len(digest(path)) == 16


def test_an_existing_file_is_kept_unless_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("mine")
    with pytest.raises(BadFileError) as caught:
        write_profile(measured(), path, overwrite=False)
    assert "--overwrite" in str(caught.value.hint)
    assert path.read_text() == "mine"
    write_profile(measured(), path, overwrite=True)
    assert read_profile(path) == measured()


@pytest.mark.parametrize("name", [".", "file/below.yaml", "x" * 300, "null\x00"])
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFileError):
        write_profile(measured(), tmp_path / name, overwrite=False)
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(BadFileError, match="regular"):
        write_profile(measured(), Path("/dev/null"), overwrite=True)


def test_a_failing_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BadFileError, match="No space left"):
        write_profile(measured(), path, overwrite=True)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["p.yaml"]


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty"), (b"\xff\xfe\x00", "is not UTF-8"), (b"PK\x03\x04", "is not"), (b"name: a\n", "has no `schema"),
     (b"schema: tstitch/plan/1\n", "expected tstitch/profile/1, found tstitch/plan/1"),
     (b"schema: tstitch/profile/2\n", "found tstitch/profile/2"),
     (b"schema: tstitch/profile/1\nschema: tstitch/profile/1\n", "second time"), (b"- a\n", "found a list"),
     (b"#" * (MAX_BYTES + 1), "larger than")],
)  # fmt: skip
def test_foreign_files(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        read_profile(path)
    assert what in caught.value.message
    assert caught.value.message.startswith(str(path))


def test_missing_and_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("\x00"), Path("x" * 5000)):
        with pytest.raises(BadFileError) as caught:
            read_profile(path)
        assert caught.value.hint


# What must hold beyond the types.


def edited(text: str, *changes: tuple[str, str]) -> list[str]:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    cls, schema = (type(planned()), PLAN_SCHEMA) if PLAN_SCHEMA in text else (type(measured()), PROFILE_SCHEMA)
    check = faults_of_plan if schema == PLAN_SCHEMA else faults_of_profile
    with pytest.raises(BadFileError) as caught:
        parse(text, "d.yaml", cls, schema, check)  # type: ignore[arg-type]
    return caught.value.message.splitlines()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("chosen: ", "chosen: 9"), "chosen: is 9"),
        (("alternatives: [", "alternatives: [0, "), "alternatives: must begin with the chosen row"),
        (("steps: {small: 20, base", "steps: {small: 19, base"), "rows[0].steps: must sum to the 20 steps, sum to 19"),
        (("[[small, 20]]", "[[small, 19], [base, 1]]"), "rows[0].allocation: does not give each denoiser"),
        (
            ("[[small, 20]]", "[[smal, 20]]"),
            "rows[0].allocation[0]: smal is none of the denoisers, did you mean small?",
        ),
        (("[[small, 20]]", "[[small, 0], [small, 20]]"), "rows[0].allocation[0]: small must take at least 1 step"),
        (("[[small, 20]]", "[]"), "rows[0].allocation: must cover the 20 steps, covers 0"),
        (("fractions: {small: 1.0", "fractions: {small: 0.9"), "rows[0].fractions: must sum to 1, sum to 0.9"),
        (("evaluations: [[1, 20]]", "evaluations: [[1, 19]]"), "evaluations: must cover the 20 steps, cover 19"),
        (("evaluations: [[1, 20]]", "evaluations: [[0, 20]]"), "evaluations[0]: needs at least 1 evaluation"),
        (("increment: 0.1", "increment: 0.3"), "increment: the increment 0.3 does not divide 1"),
        (("{mean: ", "{mean: -"), "rows[0].time_s.mean: must be above 0"),
        (("combinations: 66", "combinations: 6"), "combinations: is 6, but there are 66 rows"),
        (("quantile: 0.95", "quantile: 95"), "budget.quantile: must be between 0 and 1"),
        (("steps: 20, scheduler", "steps: 0, scheduler"), "setting.steps: must be from 1"),
    ],
)
def test_a_hand_edited_plan(change: tuple[str, str], fault: str) -> None:
    found = edited(render(planned(), PLAN_SCHEMA), change)
    assert any(fault in line for line in found), found
    assert all(line.startswith(("d.yaml:", "... and")) for line in found)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("origin: measured", "origin: guessed"), "d.yaml:2:9 origin: expected one of measured, imported, reference"),
        (('created: "2025-01-31T12', 'created: "2025-31-01T12'), "created: expected a time"),
        (("first_s: {mean: ", "first_s: {mean: -"), "denoisers[0].first_s.mean: must be above 0"),
        (("encode_s: {mean: ", "encode_s: {mean: -"), "fixed.encode_s.mean: must be at least 0"),
        (("std: ", "std: -"), "denoisers[0].first_s.std: must be at least 0"),
        (("name: base", "name: small"), "denoisers[1].name: small stands here a second time"),
        (("p95: 1.1", "p95: 1.01"), "spread.p95: is less than p90"),
        (("p95: 1.1", "p94: 1.1"), "spread: must have p50, p75, p90, p95, p99"),
        (("[[small, 19]", "[[small, 9]"), "validation[0].allocation: must cover the 20 steps, covers 10"),
        (("small: abc", "smal: abc"), "fingerprint.weights.smal: smal is none of the denoisers"),
        (("parameters: 1000", "parameters: 0"), "denoisers[0].parameters: must be above 0"),
    ],
)
def test_a_hand_edited_profile(change: tuple[str, str], fault: str) -> None:
    found = edited(render(measured(), PROFILE_SCHEMA), change)
    assert any(fault in line for line in found), found


def test_a_controlnet_of_the_setting_stands_among_the_weights() -> None:
    profile = measured()
    assert profile.fingerprint is not None
    weights = {**profile.fingerprint.weights, "control canny": "abc"}
    fingerprint = replace(profile.fingerprint, weights=weights)
    assert not list(
        faults_of_profile(
            replace(profile, fingerprint=fingerprint, setting=replace(profile.setting, control="canny")),
        )
    )
    assert [place for place, _ in faults_of_profile(replace(profile, fingerprint=fingerprint))] == [
        ("fingerprint", "weights", "control canny")
    ]


def test_denoisers_stand_cheapest_first() -> None:
    profile = measured()
    found = edited(render(replace(profile, denoisers=profile.denoisers[::-1]), PROFILE_SCHEMA))
    assert sum("cheapest first" in line for line in found) == 2


def test_all_hand_edits_are_told_at_once() -> None:
    found = edited(
        render(planned(), PLAN_SCHEMA), ("chosen: ", "chosen: 9"), ("combinations: 66", "combinations: 6"),
    )  # fmt: skip
    assert len(found) == 3  # the chosen row, the alternatives that no longer begin with it, the combinations


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    profile = replace(measured(), created="some day")
    with pytest.raises(BadFileError, match="could not be read again"):
        write_profile(profile, tmp_path / "p.yaml", overwrite=False)
    assert list(tmp_path.iterdir()) == []
