"""What an error says about itself, and what it never shows."""

from __future__ import annotations

import pytest

from navtalk_proto import errors
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarLookupTimeoutError,
    AvatarNotFoundError,
    AvatarReplyError,
    BackendRefusedError,
    BufferOverrunError,
    ConnectError,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    EndpointError,
    GpuFullError,
    HandshakeRefusedError,
    HistoryError,
    InsufficientBalanceError,
    LicenseRefusedError,
    LocalProtocolError,
    MalformedMessageError,
    MediaError,
    NavTalkError,
    NotReadyError,
    ProxyRefusedError,
    RefusalKind,
    RefusedError,
    SessionClosedError,
    UnsupportedByProviderError,
    handshake_error,
)

CLASSES = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, NavTalkError)
]


def test_codes_are_stable() -> None:
    assert {cls.__name__: cls.code for cls in CLASSES} == {
        "NavTalkError": "navtalk",
        "LocalProtocolError": "local-protocol",
        "NotReadyError": "not-ready",
        "UnsupportedByProviderError": "unsupported-by-provider",
        "SessionClosedError": "session-closed",
        "SessionLostError": "session-lost",
        "MalformedMessageError": "malformed-message",
        "EndpointError": "endpoint",
        "ConnectError": "connect",
        "ConnectFailedError": "connect-failed",
        "HandshakeRefusedError": "handshake-refused",
        "ProxyRefusedError": "proxy-refused",
        "ObsoleteProtocolError": "obsolete-protocol",
        "ProtocolViolatedError": "protocol-violated",
        "ConnectTimeoutError": "connect-timeout",
        "MediaError": "media",
        "BufferOverrunError": "buffer-overrun",
        "RefusedError": "refused",
        "ConnectRefusedError": "refused-fail",
        "InsufficientBalanceError": "refused-balance",
        "ConnectionLimitExceededError": "refused-limit",
        "GpuFullError": "refused-gpu-full",
        "BackendRefusedError": "refused-backend",
        "HistoryError": "history",
        "AvatarLookupError": "avatar-lookup",
        "AvatarNotFoundError": "avatar-not-found",
        "LicenseRefusedError": "license-refused",
        "AvatarLookupFailedError": "avatar-lookup-failed",
        "AvatarLookupTimeoutError": "avatar-lookup-timeout",
        "AvatarReplyError": "avatar-reply",
        "ToolError": "tool",
        "ToolFailedError": "tool-failed",
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
        BufferOverrunError,
        ConnectRefusedError,
        InsufficientBalanceError,
        ConnectionLimitExceededError,
        GpuFullError,
        BackendRefusedError,
        UnsupportedByProviderError,
        HistoryError,
        AvatarNotFoundError,
        LicenseRefusedError,
        AvatarLookupFailedError,
        AvatarLookupTimeoutError,
        AvatarReplyError,
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


def test_an_overrun_says_what_was_full_and_what_is_lost() -> None:
    error = BufferOverrunError("reader of video", size=2, lost=7)
    assert str(error) == "reader of video: full at 2 frames, 7 were lost"
    assert (error.buffer, error.size, error.lost) == ("reader of video", 2, 7)
    assert error.retryable


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


def test_an_import_says_where_it_is_wrong() -> None:
    error = HistoryError("is missing", field="entries[3].text")
    assert str(error) == "entries[3].text: is missing"
    assert (error.reason, error.field) == ("is missing", "entries[3].text")
    assert str(HistoryError("is not JSON")) == "is not JSON"


def test_a_look_up_says_what_came_of_it() -> None:
    assert str(AvatarNotFoundError("")) == "there is no such avatar: no text"
    assert str(LicenseRefusedError("Invalid")) == "the licence was refused: Invalid"
    failed = AvatarLookupFailedError("the service said 500", status=500)
    assert str(failed) == "the avatar could not be looked up: the service said 500"
    assert failed.status == 500
    assert AvatarLookupFailedError("no route").status is None
    reply = AvatarReplyError("is missing", field="data.id")
    assert str(reply) == "the look-up's reply: data.id: is missing"
    assert str(AvatarReplyError("is not JSON")) == "the look-up's reply: is not JSON"
    late = AvatarLookupTimeoutError(2.5)
    assert str(late) == "the avatar was not looked up within 2.5 s"
    assert isinstance(late, TimeoutError)
    assert late.seconds == 2.5
    for error in (failed, reply, late, AvatarNotFoundError(""), LicenseRefusedError("")):
        assert isinstance(error, AvatarLookupError)
    assert (failed.retryable, late.retryable, reply.retryable) == (True, True, False)


def test_a_provider_that_does_not_take_it_is_named() -> None:
    error = UnsupportedByProviderError("images", "Cartesia")
    assert str(error) == "the provider of this avatar, Cartesia, takes no images"
    assert (error.what, error.provider) == ("images", "Cartesia")
    assert isinstance(error, LocalProtocolError)


@pytest.mark.parametrize(
    ("status", "proxy", "kind"),
    [
        (401, False, HandshakeRefusedError),
        (403, False, HandshakeRefusedError),
        (407, False, ProxyRefusedError),
        (401, True, ProxyRefusedError),
        (403, True, ProxyRefusedError),
        (407, True, ProxyRefusedError),
        (2, True, ProxyRefusedError),
        (2, False, ConnectFailedError),
        (404, False, ConnectFailedError),
        (503, True, ConnectFailedError),
        (5, True, ConnectFailedError),
        (None, True, ConnectFailedError),
        (None, False, ConnectFailedError),
    ],
)
def test_a_handshake_that_was_answered(
    status: int | None, proxy: bool, kind: type[ConnectFailedError]
) -> None:
    error = handshake_error("cannot open", status, proxy=proxy)
    assert type(error) is kind
    assert (str(error), error.stage) == ("cannot open", "open")
    assert error.retryable is (kind is ConnectFailedError)
    if isinstance(error, HandshakeRefusedError):
        assert error.status == status


def test_a_socks_proxy_that_does_not_know_us() -> None:
    text = "the proxy did not connect: Username and password authentication failure"
    assert type(handshake_error(text, None, proxy=True)) is ProxyRefusedError
    assert type(handshake_error(text, None, proxy=False)) is ConnectFailedError
