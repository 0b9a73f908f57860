"""A plan holds for the machine, versions and weights it was measured with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tstitch_cli.errors import ExitStatus, StaleError
from tstitch_cli.measuring import fingerprint

HERE = fingerprint.take(torch.device("cpu"), {"small": "aa", "large": "bb"})


def test_the_same_machine_passes() -> None:
    fingerprint.require_same(HERE, fingerprint.take(torch.device("cpu"), {"small": "aa", "large": "bb"}), "the plan")


@pytest.mark.parametrize("field", ["device", "driver", "torch", "diffusers"])
def test_each_difference_is_named(field: str) -> None:
    other = replace(HERE, **{field: "other"})  # type: ignore[arg-type]
    with pytest.raises(StaleError, match=f"{field} was other, is ") as caught:
        fingerprint.require_same(other, HERE, "the plan")
    assert caught.value.status is ExitStatus.STALE


def test_all_differences_are_named_at_once() -> None:
    then = replace(HERE, threads=99, weights={"small": "aa", "large": "cc"})
    with pytest.raises(StaleError, match=r"threads was 99.*weights of large were cc, are bb"):
        fingerprint.require_same(then, HERE, "the plan")


def test_an_imported_profile_was_measured_nowhere() -> None:
    with pytest.raises(StaleError, match="not measured on this machine"):
        fingerprint.require_same(None, HERE, "the plan")


def test_other_weights_are_refused_for_the_same_picture() -> None:
    fingerprint.require_same_weights({"a": "1"}, {"a": "1"}, "x.png")
    with pytest.raises(StaleError, match="weights of a were 1, are 2"):
        fingerprint.require_same_weights({"a": "1"}, {"a": "2"}, "x.png")
