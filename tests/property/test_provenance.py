"""Provenance survives the way into JSON and PNG and back; nothing else ever comes out of a stranger's text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.test_provenance import MADE
from tstitch_cli import provenance
from tstitch_cli.errors import BadFileError
from tstitch_cli.images import save_picture
from tstitch_cli.provenance import Provenance, from_json, to_json
from tstitch_cli.schema import MAX_SEED, PlannedDenoiser, Setting

# Every code point, halves of surrogate pairs included, since a shell that is not in UTF-8 passes those.
texts = st.text(st.characters(exclude_categories=()), max_size=30)
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
counts = st.integers(1, 50)


@st.composite
def made(draw: st.DrawFn) -> Provenance:
    names = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    allocation = tuple(draw(st.lists(st.tuples(st.sampled_from(names), counts), min_size=1, max_size=4)))
    steps, batch = sum(n for _, n in allocation), draw(counts)
    return Provenance(
        prompt=draw(texts),
        negative_prompt=draw(st.none() | texts),
        seed=draw(st.integers(0, MAX_SEED)),
        index=draw(st.integers(0, 2**40)),
        setting=Setting(
            steps,
            *(draw(texts), draw(finite), draw(counts), draw(counts), draw(texts), draw(texts)),
            accelerate=tuple(draw(st.lists(texts, max_size=2))),
            offload=draw(st.booleans()),
        ),
        family=draw(texts),
        denoisers=tuple(PlannedDenoiser(name, draw(texts), draw(st.none() | texts)) for name in names),
        allocation=allocation,
        evaluations=((draw(counts), steps),),
        batch_size=batch,
        position=draw(st.integers(0, batch - 1)),
        weights=draw(st.dictionaries(texts, texts, max_size=3)),
        versions=draw(st.dictionaries(texts, texts, max_size=3)),
    )


@given(made())
def test_json_round_trip(one: Provenance) -> None:
    assert from_json(to_json(one)) == one
    assert to_json(from_json(to_json(one))) == to_json(one)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=made())
def test_png_round_trip(tmp_path: Path, one: Provenance) -> None:
    path = tmp_path / "a.png"
    save_picture(path, Image.new("L", (2, 2)), one, overwrite=True)
    assert provenance.read(path) == one
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.info["parameters"] == provenance.parameters_text(one)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(anything)
def test_arbitrary_json_is_refused_as_a_bad_file(found: object) -> None:
    with pytest.raises(BadFileError):
        from_json(json.dumps(found))


@given(st.data())
def test_a_provenance_with_one_value_replaced_is_read_or_refused(data: st.DataObject) -> None:
    content = json.loads(to_json(MADE))
    inside = data.draw(st.sampled_from([content, content["setting"], content["denoisers"][0], content["weights"]]))
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(anything)
    try:
        read = from_json(json.dumps(content))
    except BadFileError:
        return
    assert from_json(to_json(read)) == read


@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_as_a_bad_file(text: str) -> None:
    with pytest.raises(BadFileError):
        from_json(text)
