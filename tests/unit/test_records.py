"""What is kept of an evaluation: read as it was written, and absent where it is anything else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from tstitch_cli.quality.records import Records
from tstitch_cli.quality.statistics import Described

SOUND = {
    "features": np.ones((3, 4), np.float32),
    "probabilities": np.ones((3, 0), np.float32),
    "clip": np.ones((3, 1), np.float32),
    "hits": np.ones((3, 0), np.float32),
}


def written(**parts: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **(SOUND | parts))
    return content.getvalue()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    records = Records(tmp_path)
    made = Described(torch.rand(3, 4), torch.rand(3, 2), torch.rand(3, 1), torch.zeros(3, 0))
    records.put("a", made)
    found = records.get("a")
    assert found is not None
    for name in SOUND:
        torch.testing.assert_close(getattr(found, name), getattr(made, name), rtol=0, atol=0)
    assert records.get("b") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4",
        written()[:300],
        written(clip=np.ones((2, 1), np.float32)),
        written(features=np.ones(3, np.float32)),
        written(features=np.ones((3, 4), np.int64)),
        written(features=np.full((3, 4), np.nan, np.float32)),
        written(features=np.array([["a"]] * 3)),
        written(features=np.array([[{}]] * 3)),
        written(**{name: array[:0] for name, array in SOUND.items()}),
        written().replace(b"(3, 4)", b"(3,-4)"),
    ],
)
def test_anything_else_is_made_anew(content: bytes, tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.path("a").write_bytes(written())
    assert records.has("a")
    records.path("a").write_bytes(content)
    assert not records.has("a")
    made = Described(*(torch.from_numpy(SOUND[name]) for name in SOUND))
    assert records.kept("a", lambda: made) is made
    assert records.has("a")
