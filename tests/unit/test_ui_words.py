"""What the page says: the command line's words, as text and never as markup."""

from __future__ import annotations

import pytest

from tests.builders import agreeing, measured
from tstitch_cli.errors import UsageError
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.ui import words


def test_the_row_is_named_with_its_time_and_loss() -> None:
    plan = make_plan(agreeing(measured()), budget=parse_budget("50%"))
    row, said = plan.rows[plan.chosen], words.row(plan)
    first, second = row.allocation[:2]
    assert f"row {plan.chosen}, {first[1]} steps of {first[0]}, then {second[1]}" in said
    assert f"{row.time_s.mean * 1e3:.4g} ms on average" in said
    assert f"its predicted loss is {row.loss:.4f}" in said
    assert "the budget is 50% of large alone" in said


def test_an_error_is_told_with_its_hint_and_as_text() -> None:
    said = words.failure(UsageError("there is no <b>", hint="give [bold]this[/]\x1b[31m"))
    assert "<p>error: there is no &lt;b&gt;</p>" in said
    assert "<p>hint: give [bold]this[/]\\x1b[31m</p>" in said


def test_the_machines_failures_and_our_own_are_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: this machine ran out of memory" in words.failure(MemoryError())
    bug = ZeroDivisionError("division by zero")
    bug.add_note("in step 3 of 20, which large takes")
    said = words.failure(bug)
    assert "bug: ZeroDivisionError: division by zero, in step 3 of 20, which large takes" in said
    assert "This is a fault of tstitch" in said
    assert "Traceback" not in said + capsys.readouterr().err


def test_a_bugs_traceback_goes_to_the_terminal_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TSTITCH_TRACEBACK", "1")
    assert "Traceback" not in words.failure(ZeroDivisionError("x"))
    assert "ZeroDivisionError: x" in capsys.readouterr().err
