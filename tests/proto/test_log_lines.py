"""One line per event, with its prefix, and without what people said."""

from __future__ import annotations

import pytest

from navtalk_proto import log_lines
from navtalk_proto.errors import RefusalKind
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Connected,
    Event,
    FunctionCall,
    MediaStalled,
    MessageReceived,
    Negotiated,
    NegotiationFailed,
    ProtocolViolation,
    Ready,
    Refused,
    ResponseText,
    TimedOut,
    UnknownMessage,
    UserTurn,
)
from navtalk_proto.log_lines import LogSetting, event_line, log_sent, logged, sent_line
from navtalk_proto.media import (
    CandidatePair,
    IceServerFailed,
    MediaKind,
    MediaState,
    MediaStateChanged,
)
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer, UserMessage

PAIR = CandidatePair(local="10.0.0.1:5000", remote="10.0.0.2:6000", state="FAILED")


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (Ready(), "INFO", "= Ready"),
        (
            Connected(
                session_id="s-1",
                ice_servers=(IceServer(urls=("turn:x",), credential=Secret("EXAMPLE")),),
            ),
            "INFO",
            "= Connected session_id='s-1' ice_servers=1",
        ),
        (Negotiated(offered_by_us=False, wish=7), "INFO", "= Negotiated offered_by_us=False"),
        (MessageReceived(message=UserMessage(texts=("hidden",))), "DEBUG", "< UserMessage"),
        (UserTurn(text="hidden"), "INFO", "= UserTurn text=<6 characters> typed=False"),
        (
            ResponseText(response_id="r-1", delta="hidden"),
            "DEBUG",
            "< ResponseText response_id='r-1' delta=<6 characters>",
        ),
        (
            UnknownMessage(type="news", raw='{"type": "hidden"}'),
            "DEBUG",
            "< UnknownMessage type='news'",
        ),
        (
            FunctionCall(call_id="c-1", name="weather", arguments="hidden"),
            "INFO",
            "< FunctionCall call_id='c-1' name='weather' arguments=<6 characters>",
        ),
        (
            TimedOut(waiting_for="the offer", seconds=30.0),
            "WARNING",
            "% TimedOut waiting_for='the offer' seconds=30",
        ),
        (
            Refused(kind=RefusalKind.FAIL, text="wss://h/?license=hidden no", retryable=False),
            "WARNING",
            "! Refused kind=fail text='wss://h/?license=*** no' retryable=False",
        ),
        (
            ProtocolViolation(reason="is not JSON"),
            "WARNING",
            "! ProtocolViolation reason='is not JSON' fatal=False",
        ),
        (
            MediaStalled(kind=MediaKind.VIDEO, track_id="v", silent_for=2.04),
            "WARNING",
            "! MediaStalled kind=video track_id='v' silent_for=2.04",
        ),
        (
            IceServerFailed(url="stun:h:3478", reason="no answer"),
            "WARNING",
            "! IceServerFailed url='stun:h:3478' reason='no answer'",
        ),
        (
            MediaStateChanged(state=MediaState.FAILED, reason="no pair", pairs=(PAIR, PAIR)),
            "WARNING",
            "! MediaStateChanged state=failed reason='no pair' pairs=["
            "10.0.0.1:5000 -> 10.0.0.2:6000 FAILED; 10.0.0.1:5000 -> 10.0.0.2:6000 FAILED]",
        ),
        (
            MediaStateChanged(state=MediaState.CONNECTED),
            "INFO",
            "= MediaStateChanged state=connected",
        ),
        (
            Closed(cause=CloseCause.REMOTE, code=1001, reason="going away"),
            "INFO",
            "x Closed cause=remote code=1001 reason='going away' forced=False",
        ),
        (
            NegotiationFailed(reason="the session is closing", session_ended=True),
            "INFO",
            "x NegotiationFailed reason='the session is closing' session_ended=True",
        ),
        (
            NegotiationFailed(reason="no answer"),
            "WARNING",
            "! NegotiationFailed reason='no answer' session_ended=False",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_an_event(event: Event, level: str, text: str) -> None:
    line = event_line(event)
    assert line.text == text
    assert line.level == getattr(log_lines, level)
    assert "hidden" not in line.text


def test_a_message_of_ours_shows_its_type_and_size() -> None:
    line = sent_line('{"type": "response.create", "text": "hidden"}')
    assert (line.level, line.text) == (log_lines.DEBUG, "> response.create, 45 characters")
    assert sent_line("[]").text == "> ?, 2 characters"


@pytest.mark.parametrize(
    ("text", "level", "path"),
    [
        ("debug", 10, None),
        (" INFO ", 20, None),
        ("warning:", 30, None),
        ("error:C:/logs/navtalk.log", 40, "C:/logs/navtalk.log"),
    ],
)
def test_a_setting(text: str, level: int, path: str | None) -> None:
    setting = LogSetting.parse(text)
    assert (setting.level, setting.path) == (level, path)


@pytest.mark.parametrize("text", ["", "verbose", ":navtalk.log", "10"])
def test_a_setting_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"a level \(debug, info, warning, error\)"):
        LogSetting.parse(text)


class Written:
    """A log of one level."""

    def __init__(self, level: int) -> None:
        self._level = level
        self.lines: list[tuple[int, str]] = []

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return level >= self._level

    def log(self, level: int, msg: str, *args: object) -> None:
        self.lines.append((level, msg % args))


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        (log_lines.DEBUG, [(20, "= Ready"), (10, "> response.create, 27 characters")]),
        (log_lines.INFO, [(20, "= Ready")]),
        (log_lines.WARNING, []),
        (40, []),
    ],
)
def test_a_log_has_the_lines_that_it_wants(level: int, wanted: list[tuple[int, str]]) -> None:
    log = Written(level)
    told: list[Event] = []
    logged(told.append, log)(Ready())
    log_sent('{"type": "response.create"}', log)
    assert told == [Ready()]
    assert log.lines == wanted
