"""What an exit code means, and which error ends a command with which: the one place for both."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from navtalk_proto.errors import ConnectRefusedError, ConnectTimeoutError, NavTalkError
from navtalk_proto.events import CloseCause

__all__ = ["EXIT_CODES", "ExitCode", "exit_code", "exit_code_of_end"]


class ExitCode(IntEnum):
    """What a command's exit code means. 1 is left to Python: an exception that is our mistake."""

    OK = 0
    USAGE = 2
    """Arguments, files or the config file."""
    LICENCE = 3
    """There is none, or the server does not take it."""
    NETWORK = 4
    """Name look-up, TCP, TLS, WebSocket, ICE: the way there, or its end on the way."""
    REFUSED = 5
    """The server said no: balance, capacity, no such avatar."""
    MEDIA = 6
    """Media that did not come, or could not be written or shown."""
    PROTOCOL = 7
    """The far end does not speak the protocol, or another version of it."""
    REPLAY = 8
    """A replayed trace went another way."""
    INTERRUPTED = 130


EXIT_CODES: Final[Mapping[str, ExitCode]] = {
    # by NavTalkError.code; a class without a line of its own has that of its base class
    "navtalk": ExitCode.USAGE,  # of a brain, a tool or a file of the user's own
    "no-licence": ExitCode.LICENCE,
    "session-closed": ExitCode.NETWORK,
    "malformed-message": ExitCode.PROTOCOL,
    "connect": ExitCode.NETWORK,
    "handshake-refused": ExitCode.REFUSED,
    "proxy-refused": ExitCode.NETWORK,
    "obsolete-protocol": ExitCode.PROTOCOL,
    "protocol-violated": ExitCode.PROTOCOL,
    "media": ExitCode.NETWORK,
    "refused": ExitCode.REFUSED,
    "refused-fail": ExitCode.LICENCE,  # but for an avatar: see exit_code()
    "avatar-lookup": ExitCode.NETWORK,
    "avatar-not-found": ExitCode.REFUSED,
    "license-refused": ExitCode.LICENCE,
    "avatar-reply": ExitCode.PROTOCOL,
    "recording": ExitCode.MEDIA,
    "synthesis": ExitCode.MEDIA,
    "mouthpiece": ExitCode.MEDIA,
    "sound-device": ExitCode.MEDIA,
}

_ENDS: Final[Mapping[CloseCause, ExitCode]] = {
    CloseCause.LOCAL: ExitCode.MEDIA,
    CloseCause.REMOTE: ExitCode.NETWORK,
    CloseCause.REFUSED: ExitCode.REFUSED,
    CloseCause.TIMEOUT: ExitCode.NETWORK,
    CloseCause.VIOLATION: ExitCode.PROTOCOL,
    CloseCause.MEDIA_LOST: ExitCode.MEDIA,
}


def exit_code(error: NavTalkError | OSError) -> ExitCode:
    """The exit code of a command that an error ended; the network's for one of the system."""
    if isinstance(error, ConnectRefusedError) and "avatar" in error.text.lower():
        # One event for licence and avatar (protocol.md 5.3); only its text tells them apart.
        return ExitCode.REFUSED
    if isinstance(error, ConnectTimeoutError) and "media packet" in error.waiting_for:
        return ExitCode.MEDIA
    for cls in type(error).__mro__:
        found = EXIT_CODES.get(vars(cls).get("code", ""))
        if found is not None:
            return found
    return ExitCode.NETWORK


def exit_code_of_end(cause: CloseCause | None) -> ExitCode:
    """The exit code of a command whose session ended too early; `cause` None: it still lived."""
    return ExitCode.MEDIA if cause is None else _ENDS[cause]
