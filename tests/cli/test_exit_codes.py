"""Every exception says what it is and what to do, and ends a command with a code of the table."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import navtalk_asyncio
import navtalk_proto
import navtalk_sound
import navtalk_trio
from navtalk_asyncio.cli.exit_codes import EXIT_CODES, ExitCode, exit_code, exit_code_of_end
from navtalk_proto.errors import (
    AvatarNotFoundError,
    ConnectFailedError,
    ConnectTimeoutError,
    EndpointError,
    LicenseRefusedError,
    MediaError,
    NavTalkError,
    ObsoleteProtocolError,
    ProtocolViolatedError,
    RefusalKind,
    RefusedError,
)
from navtalk_proto.events import CloseCause

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"

INTERNAL = {
    "TransportClosedError": "what a transport tells its driver; `code` is the WebSocket's",
    "ArgumentsError": "becomes the tool's error result, which the model reads",
    "ServerError": "becomes IceServerFailed",
    "CommandError": "becomes media_failed",
    "UnusableSdpError": "becomes media_failed",
    "EngineMisuseError": "an assertion of the test kit",
}
"""Exceptions that never leave to an application as they are, and what becomes of them."""


def exceptions() -> list[type[Exception]]:
    """Every exception class that a module of ours defines and does not call private."""
    found = []
    for package in (navtalk_proto, navtalk_asyncio, navtalk_trio, navtalk_sound):
        for known in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if known.name.endswith(("__main__", "pytest_plugin")):
                continue
            module = importlib.import_module(known.name)
            found += [
                value
                for name, value in vars(module).items()
                if isinstance(value, type)
                and issubclass(value, Exception)
                and value.__module__ == module.__name__
                and not name.startswith("_")
            ]
    return found


EXCEPTIONS = exceptions()
OURS = [cls for cls in EXCEPTIONS if issubclass(cls, NavTalkError)]


def test_only_these_are_no_errors_of_an_application() -> None:
    assert {cls.__name__ for cls in EXCEPTIONS} - {cls.__name__ for cls in OURS} == set(INTERNAL)


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_an_exception_says_what_it_is_and_what_to_do(cls: type[NavTalkError]) -> None:
    assert "code" in vars(cls), "a class of its own has a code of its own"
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", cls.code)
    assert isinstance(cls.retryable, bool)
    assert cls.hint
    assert not re.search(r"[^.]\.$", cls.hint)


def test_no_two_have_the_same_code() -> None:
    codes = [cls.code for cls in OURS]
    assert sorted(codes) == sorted(set(codes))


def test_the_table_has_no_code_that_nobody_has() -> None:
    assert set(EXIT_CODES) <= {cls.code for cls in OURS}


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_every_class_ends_with_a_failure_that_is_not_ours(cls: type[NavTalkError]) -> None:
    error = cls.__new__(cls)
    error.text = error.waiting_for = ""  # type: ignore[attr-defined]
    assert exit_code(error) not in (ExitCode.OK, ExitCode.REPLAY, ExitCode.INTERRUPTED)


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text("utf-8")
    listed = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \|", page, re.MULTILINE)
    assert listed == [(name, str(int(code))) for name, code in EXIT_CODES.items()]
    meanings = re.findall(r"^\| (\d+) \| [A-Z]", page, re.MULTILINE)
    assert meanings == [str(int(code)) for code in ExitCode]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EndpointError("no host"), 2),
        (RefusedError.of(RefusalKind.FAIL, "Invalid license key"), 3),
        (LicenseRefusedError(""), 3),
        (ConnectFailedError("nobody listens", stage="open"), 4),
        (ConnectTimeoutError("ICE", 30.0), 4),
        (MediaError("no media connection"), 4),
        (OSError(111, "Connection refused"), 4),
        (RefusedError.of(RefusalKind.FAIL, "Avatar not found"), 5),
        (RefusedError.of(RefusalKind.GPU_FULL, ""), 5),
        (RefusedError.of(RefusalKind.INSUFFICIENT_BALANCE, ""), 5),
        (AvatarNotFoundError(""), 5),
        (ConnectTimeoutError("the first media packet", 30.0), 6),
        (ObsoleteProtocolError("version 1", stage="closing"), 7),
        (ProtocolViolatedError("not JSON", stage="closing"), 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_by_class(error: NavTalkError | OSError, code: int) -> None:
    assert exit_code(error) == code


def test_a_class_of_the_users_own_has_that_of_its_base() -> None:
    class OursError(MediaError):
        code = "of-the-user"

    assert exit_code(OursError("no picture")) is ExitCode.NETWORK


def test_a_session_that_ended_too_early() -> None:
    assert exit_code_of_end(None) is ExitCode.MEDIA
    codes = {cause: exit_code_of_end(cause) for cause in CloseCause}
    assert codes[CloseCause.REFUSED] is ExitCode.REFUSED
    assert codes[CloseCause.VIOLATION] is ExitCode.PROTOCOL
    assert codes[CloseCause.REMOTE] is codes[CloseCause.TIMEOUT] is ExitCode.NETWORK
    assert codes[CloseCause.MEDIA_LOST] is ExitCode.MEDIA
