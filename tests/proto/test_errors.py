"""What an error says about itself, and what it never shows."""

from __future__ import annotations

import pytest

from navtalk_proto import errors
from navtalk_proto.errors import (
    BackendRefusedError,
    ConnectError,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    EndpointError,
    GpuFullError,
    InsufficientBalanceError,
    LocalProtocolError,
    MalformedMessageError,
    MediaError,
    NavTalkError,
    NotReadyError,
    RefusalKind,
    RefusedError,
    SessionClosedError,
)

CLASSES = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, NavTalkError)
]


def test_codes_are_stable() -> None:
    assert {cls.__name__: cls.code for cls in CLASSES} == {
        "NavTalkError": "navtalk",
        "LocalProtocolError": "local-protocol",
        "NotReadyError": "not-ready",
        "SessionClosedError": "session-closed",
        "MalformedMessageError": "malformed-message",
        "EndpointError": "endpoint",
        "ConnectError": "connect",
        "ConnectFailedError": "connect-failed",
        "ConnectTimeoutError": "connect-timeout",
        "MediaError": "media",
        "RefusedError": "refused",
        "ConnectRefusedError": "refused-fail",
        "InsufficientBalanceError": "refused-balance",
        "ConnectionLimitExceededError": "refused-limit",
        "GpuFullError": "refused-gpu-full",
        "BackendRefusedError": "refused-backend",
    }


@pytest.mark.parametrize(
    "cls",
    [
        LocalProtocolError,
        NotReadyError,
        SessionClosedError,
        EndpointError,
        ConnectFailedError,
        ConnectTimeoutError,
        MediaError,
        ConnectRefusedError,
        InsufficientBalanceError,
        ConnectionLimitExceededError,
        GpuFullError,
        BackendRefusedError,
    ],
)
def test_what_a_user_meets_has_a_hint(cls: type[NavTalkError]) -> None:
    assert cls.hint


def test_local_mistakes_and_the_ends_of_sessions_are_apart() -> None:
    assert issubclass(NotReadyError, LocalProtocolError)
    for cls in (SessionClosedError, MalformedMessageError, ConnectError, EndpointError):
        assert not issubclass(cls, LocalProtocolError)
    assert issubclass(ConnectTimeoutError, TimeoutError)
    assert issubclass(EndpointError, ValueError)


@pytest.mark.parametrize(
    ("type", "field", "text"),
    [
        (None, None, "is not JSON"),
        ("error", None, "error: is not JSON"),
        (None, "type", "type: is not JSON"),
        ("error", "data.code", "error: data.code: is not JSON"),
    ],
)
def test_a_malformed_message_says_where(type: str | None, field: str | None, text: str) -> None:
    error = MalformedMessageError("is not JSON", type=type, field=field)
    assert str(error) == text
    assert (error.reason, error.type, error.field) == ("is not JSON", type, field)


def test_a_failed_connect_says_where() -> None:
    error = ConnectFailedError("closed", stage="welcoming", close_code=1008)
    assert (str(error), error.stage, error.close_code) == ("closed", "welcoming", 1008)
    assert ConnectFailedError("closed", stage="idle").close_code is None
    assert error.retryable


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ("", "no usable session within 30 s: still waiting for ice"),
        ("2 pairs failed", "no usable session within 30 s: still waiting for ice (2 pairs failed)"),
    ],
)
def test_a_timeout_names_the_step(detail: str, text: str) -> None:
    error = ConnectTimeoutError("ice", 30.0, detail)
    assert str(error) == text
    assert (error.waiting_for, error.seconds) == ("ice", 30.0)


@pytest.mark.parametrize(
    ("kind", "cls", "value", "retryable"),
    [
        (RefusalKind.FAIL, ConnectRefusedError, "fail", False),
        (
            RefusalKind.INSUFFICIENT_BALANCE,
            InsufficientBalanceError,
            "insufficient_balance",
            False,
        ),
        (
            RefusalKind.CONNECTION_LIMIT_EXCEEDED,
            ConnectionLimitExceededError,
            "connection_limit_exceeded",
            True,
        ),
        (RefusalKind.GPU_FULL, GpuFullError, "gpu_full", True),
        (RefusalKind.BACKEND_ERROR, BackendRefusedError, "backend_error", True),
    ],
)
def test_each_refusal_has_its_exception(
    kind: RefusalKind, cls: type[RefusedError], value: str, retryable: bool
) -> None:
    error = RefusedError.of(kind, "the server's words")
    assert type(error) is cls
    assert isinstance(error, ConnectError)
    assert (kind.value, kind.retryable, error.retryable) == (value, retryable, retryable)
    assert (error.kind, error.text) == (kind, "the server's words")
    assert str(error) == f"the server refused the session ({value}): the server's words"
    assert str(RefusedError.of(kind, "")).endswith(f"({value}): no text")


def test_there_are_five_refusals() -> None:
    assert len(RefusalKind) == 5
