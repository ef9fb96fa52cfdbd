"""Which exception leaves: one bare, several as a group, and each as it was raised."""

from __future__ import annotations

import traceback

import pytest

from navtalk_proto.errors import MediaError, SessionClosedError
from navtalk_proto.exception_groups import raise_unchanged, unwrap, without


class Cancelled(BaseException):
    """What no `except Exception` sees."""


def test_one_exception_comes_out_however_deep_it_is() -> None:
    error = ValueError("one")
    assert unwrap(ExceptionGroup("a", [error])) is error
    assert unwrap(ExceptionGroup("a", [ExceptionGroup("b", [ExceptionGroup("c", [error])])])) is (
        error
    )
    cancelled = Cancelled()
    assert unwrap(BaseExceptionGroup("a", [cancelled])) is cancelled


def test_several_stay_together() -> None:
    several = ExceptionGroup("b", [ValueError("one"), KeyError("two")])
    assert unwrap(several) is several
    assert unwrap(ExceptionGroup("a", [several])) is several
    split = ExceptionGroup("c", [ExceptionGroup("d", [ValueError()]), KeyError()])
    assert unwrap(split) is split


def test_what_follows_from_others_is_left_out() -> None:
    cause = ValueError("cause")
    group = BaseExceptionGroup(
        "a",
        [SessionClosedError(), ExceptionGroup("b", [MediaError("gone"), cause]), Cancelled()],
    )
    rest = without(group, (SessionClosedError, MediaError))
    assert [type(error) for error in rest.exceptions] == [ExceptionGroup, Cancelled]
    (inner, _) = rest.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (cause,)
    assert len(group.exceptions) == 3


def test_consequences_alone_stay() -> None:
    group = ExceptionGroup("a", [SessionClosedError(), MediaError("gone")])
    assert without(group, (SessionClosedError, MediaError)) is group
    assert without(group, (KeyError,)).exceptions == group.exceptions


def failing(error: Exception) -> None:
    """Raise an exception as a task does that failed while it handled another one."""
    nothing: dict[str, int] = {}
    try:
        nothing["no such key"]
    except KeyError:
        raise error from OSError("cause")


def raised_while_cancelled(error: BaseException) -> None:
    """Raise a failure where the cancellation that followed from it is being handled."""

    def cancelled_body() -> None:
        raise Cancelled

    try:
        cancelled_body()
    except Cancelled:
        raise_unchanged(error)


def test_a_failure_keeps_its_cause_and_context() -> None:
    error = ValueError("the failure")
    with pytest.raises(ValueError, match="the failure"):
        failing(error)
    context, cause = error.__context__, error.__cause__
    assert isinstance(context, KeyError)
    assert isinstance(cause, OSError)
    with pytest.raises(ValueError, match="the failure") as caught:
        raised_while_cancelled(error)
    assert caught.value is error
    assert error.__context__ is context
    assert error.__cause__ is cause
    # Where it was raised first is still told.
    assert "failing" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_a_failure_without_a_context_gets_none() -> None:
    error = ValueError("alone")
    with pytest.raises(ValueError, match="alone"):
        raised_while_cancelled(error)
    assert error.__context__ is None
    assert error.__suppress_context__ is False


def test_what_no_handler_of_exceptions_sees_is_raised_too() -> None:
    with pytest.raises(Cancelled):
        raise_unchanged(Cancelled())
