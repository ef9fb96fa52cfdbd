"""What is taken out of a trace before it is written, so that what is left still replays.

Theory of operation
===================

1. A secret is replaced by a token of the same shape: as many characters, each as wide in UTF-8. The
   same secret has the same token throughout a trace. No token is made from its secret.

2. Replaying compares what the core makes of scrubbed inputs with scrubbed actions. That works
   because scrubbing goes through the same places as the core: the credentials of ICE servers by
   where they stand, every secret that is known by what it is, and texts and audio by the field of
   the message that they end up in. A message that has anything to hide is written again from what
   is left; all others are recorded to the letter.

3. Omitted text keeps its white space and its lengths, because the core counts words and characters.
   Omitted audio is silence of the same length.

4. A broken message has no fields. Its strings are masked where they stand; if that would change
   what is wrong with it, it is left out, with all that a replay could tell from then on: a Gap.

What is found by value is found once it is known: a licence from the start, a credential from the
message that brings it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs
from attrs import evolve

from navtalk_proto.actions import Action, Emit, SendText
from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.events import (
    FunctionCall,
    ResponseDone,
    ResponseFailed,
    ResponseGenerated,
    ResponseInterrupted,
    ResponseText,
    UnknownMessage,
    UserTurn,
)
from navtalk_proto.inputs import Input, TextReceived
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire import codec, messages
from navtalk_proto.wire.jsontext import dumps, loads
from navtalk_proto.wire.messages import (
    AudioAppend,
    AudioDelta,
    FunctionCallDelta,
    FunctionCallDone,
    FunctionCallOutput,
    GatewayHello,
    IceServer,
    InputConfig,
    InputFunctionCall,
    InputImage,
    InputText,
    InputTranscript,
    ServerStatus,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    Unknown,
    UnmappedEvent,
    UserMessage,
    VideoDelta,
)

__all__ = ["SHORTEST_SECRET", "Scrubber", "mask"]

SHORTEST_SECRET: Final = 8
"""Characters of the shortest secret that is looked for in texts. A shorter one is replaced where it
stands for itself; as part of a text it may be any word."""

_TEXTS: Final[dict[type, tuple[str, ...]]] = {
    **dict.fromkeys((InputTranscript, TranscriptDelta, TranscriptDone, InputText), ("content",)),
    **dict.fromkeys((SessionCreated, SessionUpdated, ServerStatus, VideoDelta), ("data",)),
    **dict.fromkeys((ToolResult, FunctionCallOutput), ("output",)),
    GatewayHello: ("data",),
    UnmappedEvent: ("raw_data",),
    FunctionCallDelta: ("delta",),
    FunctionCallDone: ("arguments", "raw_data"),
    InputConfig: ("prompt", "tools"),
    InputFunctionCall: ("tools",),
    UserMessage: ("texts",),
    SessionUpdate: ("session",),
    **dict.fromkeys(
        (SayText, UserTurn, ResponseGenerated, ResponseDone, ResponseFailed), ("text",)
    ),
    ResponseText: ("delta",),
    ResponseInterrupted: ("text", "heard"),
    FunctionCall: ("arguments",),
}
"""The fields that hold what somebody said, by class."""

_AUDIO: Final[dict[type, str]] = {
    AudioAppend: "audio",
    AudioDelta: "audio",
    SendAudio: "pcm",
    InputImage: "content",
}
"""The fields that hold a voice or a picture, by class."""

_CREDENTIALS: Final = frozenset({"username", "credential", "password"})
_CREDENTIAL_TEXT: Final = re.compile(
    r'"(?:username|credential|password)"\s*+:\s*+"((?:[^"\\]|\\.)*+)', re.DOTALL
)
_WORD: Final = re.compile(r"\S+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_IN_URL: Final = re.compile(r"(?<=:)[^@]*+(?=@)")
_UNSPOKEN_KEYS: Final = frozenset(("type", "sdp", "candidate", "sdpMid", "usernameFragment"))
"""Keys of a broken message whose texts nobody said, and which are what may be wrong with it."""

_TYPES: Final = tuple(
    kind.TYPE for kind in vars(messages).values() if isinstance(getattr(kind, "TYPE", None), str)
)


def _filled(pattern: str, text: str) -> str:
    """The pattern over and over, with as many characters as the text, each as wide in UTF-8."""
    if text.isascii() and text.isalnum():
        return (pattern * (len(text) // len(pattern) + 1))[: len(text)]
    return "".join(
        char  # Where words end is where the core cuts.
        if char.isspace()
        else pattern[at % len(pattern)]
        if char.isascii()
        else char  # A lone surrogate is no character of anybody's, and makes a message broken.
        if "\ud800" <= char <= "\udfff"
        else _WIDE[len(char.encode())]
        for at, char in enumerate(text)
    )


_WIDE: Final = {2: "\u00f8", 3: "\u2026", 4: "\U0001d569"}
"""Characters by their bytes in UTF-8."""


def mask(text: str) -> str:
    """A text without its words: ``x`` for everything but white space, as wide in UTF-8.

    ``{}`` stays: the core makes it of a function call's arguments where there are none.
    """
    if text == "{}":
        return text
    return _WORD.sub(lambda found: _filled("x", found[0]), text)


def _silent_picture(content: str) -> str:
    head, comma, data = content.rpartition(",")
    return head + comma + _filled("A", data)


def _walk(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """A copy of a JSON value; `change` gets each string and the key above it, "" for a key."""
    if isinstance(value, str):
        return change(value, key)
    if isinstance(value, Mapping):
        return {change(name, ""): _walk(item, change, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, change, key) for item in value]
    return value


class Scrubber:
    """Takes secrets out of the inputs and actions of one session, in order.

    `secrets` are known from the start: the licence. `text` and `audio` False leave out what was
    said, and voices and pictures. With `credentials` False those are kept: for tests.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        *,
        text: bool = True,
        audio: bool = True,
        credentials: bool = True,
    ) -> None:
        self._keeps_text = text
        self._keeps_audio = audio
        self._credentials = credentials
        self._tokens: dict[str, str] = {}
        self._spellings: dict[str, str] = {}
        """What is looked for in texts: spellings of the secrets, and of their tokens."""
        self._received: tuple[str, str] = ("", "")
        """The last text received, and what it became."""
        for secret in secrets:
            self._token(secret)

    @property
    def omits(self) -> tuple[str, ...]:
        """What is left out besides secrets."""
        kept = {"text": self._keeps_text, "audio": self._keeps_audio}
        return tuple(name for name, keeps in kept.items() if not keeps)

    # ---- whole inputs and actions

    def input(self, given: Input, *, role: Role, limits: Limits) -> Input | None:
        """An input as it may be recorded; None: not at all, since nothing else is like it."""
        if not isinstance(given, TextReceived):
            scrubbed: Input = self.value(given)
            return scrubbed
        text = given.text
        if isinstance(text, bytes):
            # The core's own reading; bytes that are no text have nothing that could be told apart.
            try:
                text = text.decode()
            except UnicodeDecodeError:
                return evolve(given, text=b"\xff" * len(given.text)) if self._hides else given
        clean = self._wire(text, sender=role.peer, limits=limits)
        if clean is None:
            return None
        self._received = (text, clean)
        return given if clean == text else evolve(given, text=clean)

    def action(self, action: Action, *, role: Role, limits: Limits) -> Action:
        """An action as it may be recorded, after the input that it follows from."""
        if isinstance(action, SendText):
            clean = self._wire(action.text, sender=role, limits=limits, pad=False)
            assert clean is not None, "what a core sends is not broken"
            return action if clean == action.text else evolve(action, text=clean)
        if isinstance(action, Emit) and isinstance(action.event, ResponseInterrupted):
            # What was heard is the beginning of the text; cut, it may end in half a secret.
            clean_event: ResponseInterrupted = self.value(action.event)
            heard = clean_event.text[: len(action.event.heard)]
            return evolve(action, event=evolve(clean_event, heard=heard))
        if isinstance(action, Emit) and isinstance(action.event, UnknownMessage):
            # Its text is the beginning of what was received; cut, it may end in half a secret.
            raw = self._received[1][: limits.unknown_raw]
            event = evolve(action.event, raw=raw, type=self._secretless(action.event.type))
            return evolve(action, event=event)
        scrubbed: Action = self.value(action)
        return scrubbed

    # ---- values

    @property
    def _hides(self) -> bool:
        return bool(self._spellings or self.omits)

    def value(self, value: Any) -> Any:
        """A value of the vocabulary, or a configuration, as it may be recorded."""
        if isinstance(value, str):
            return self._secretless(value)
        if isinstance(value, tuple):
            return tuple(self.value(item) for item in value)
        if isinstance(value, Mapping):
            return self._json(value)
        if not attrs.has(type(value)):
            return value
        kind = type(value)
        if kind is IceServer and self._credentials:
            return self._ice_server(value)
        changed: dict[str, Any] = {}
        texts = () if self._keeps_text else _TEXTS.get(kind, ())
        for field in attrs.fields(kind):
            item = getattr(value, field.name)
            if field.name in texts:
                new = self._masked(item)
            elif not self._keeps_audio and _AUDIO.get(kind) == field.name:
                new = bytes(len(item)) if isinstance(item, bytes) else _silent_picture(item)
            else:
                new = self.value(item)
            if new is not item:
                changed[field.name] = new
        return evolve(value, **changed) if changed else value

    def _masked(self, item: Any) -> Any:
        if isinstance(item, str):
            # A message's text has lost its secrets before; one that is escaped is longer.
            return mask(self._secretless(item))
        if isinstance(item, tuple):
            return tuple(map(self._masked, item))
        # JSON inside of a message: its keys and numbers stay, but for secrets, and so does what the
        # codec writes of itself.
        kept = ("", "type", "name", "call_id")
        return _walk(self._json(item), lambda text, key: text if key in kept else mask(text), "?")

    def _ice_server(self, server: IceServer) -> IceServer:
        return IceServer(
            urls=tuple(map(self._url, server.urls)),
            username=server.username and self._token(server.username),
            credential=server.credential and Secret(self._token(server.credential.reveal())),
        )

    def _json(self, value: Any) -> Any:
        """JSON without secrets, by where they stand and by what they are."""

        def change(text: str, key: str) -> str:
            if self._credentials and key.lower() in _CREDENTIALS:
                return self._token(text)
            if self._credentials and key in ("urls", "url"):
                return self._url(text)
            return self._secretless(text)

        # Twice: what is known only after the first pass may stand before.
        _walk(value, change)
        walked = _walk(value, change)
        return value if walked == value else walked

    def _url(self, url: str) -> str:
        found = _IN_URL.search(url)
        if found is None:
            return self._secretless(url)
        return _IN_URL.sub(lambda found: self._token(found[0]), url, count=1)

    # ---- secrets

    def _token(self, secret: str) -> str:
        if secret in self._tokens.values():
            return secret
        if secret not in self._tokens:
            pattern = f"scrubbed-{len(self._tokens) + 1}-"
            token = self._tokens[secret] = _filled(pattern, secret)
            if len(secret) >= SHORTEST_SECRET and not any(secret in kind for kind in _TYPES):
                self._look_for(secret, token, pattern)
        return self._tokens[secret]

    def _look_for(self, secret: str, token: str, pattern: str) -> None:
        spellings = {secret: token}
        # JSON inside of a text is read again, and then the token is as long as its secret.
        spellings.setdefault(json.dumps(secret)[1:-1], token)
        spellings.setdefault(json.dumps(secret, ensure_ascii=False)[1:-1], token)
        quoted = quote(secret, safe="")
        spellings.setdefault(quoted, _filled(pattern, quoted))  # As wide: it is all ASCII.
        found = {**self._spellings, **spellings}
        self._spellings = dict(sorted(found.items(), key=lambda item: -len(item[0])))

    def _secretless(self, text: str) -> str:
        for spelling, token in self._spellings.items():
            if spelling in text:
                text = text.replace(spelling, token)
        return text

    # ---- the wire

    def _wire(self, text: str, *, sender: Role, limits: Limits, pad: bool = True) -> str | None:
        """A message's text as it may be recorded; None: it may not."""
        value: Any = None
        longest = limits.server_message if sender is Role.SERVER else limits.client_message
        if len(text) > longest and self.omits:
            return "x" * len(text)
        try:
            # What is too long is read by nobody.
            value = loads(text if len(text) <= longest else "", limits.values)
        except MalformedMessageError:
            clean = self._broken_json(text)
            if clean != text and _wrong(clean, sender, limits) != _wrong(text, sender, limits):
                return None
        else:
            scrubbed = self._json(value)
            clean = text
            if scrubbed != value:
                # As long as it was, where it was received; what we send is written by our codec.
                clean = _as_long(dumps(scrubbed), text) if pad else dumps(scrubbed)
        if not self.omits:
            return clean
        try:
            message = codec.decode(clean, sender=sender, limits=limits)
        except MalformedMessageError as error:
            return self._broken(clean, value and self._json(value), error, sender, limits)
        if isinstance(message, Unknown):
            return self._unknown(self._json(value))
        masked = self.value(message)
        if masked == message:
            return clean
        encoded = codec.encode(masked)
        if isinstance(masked, FunctionCallDone) and masked.raw_data is None:
            # The codec writes one, for those who look there.
            plain: Any = loads(encoded)
            return dumps({**plain, "raw_data": None})
        return encoded

    def _broken_json(self, text: str) -> str:
        if self._credentials:
            for found in _CREDENTIAL_TEXT.finditer(text):
                token = self._token(found[1])
                text = f"{text[: found.start(1)]}{token}{text[found.end(1) :]}"
        for spelling, token in self._spellings.items():
            # As long as it was: an error says at which character.
            text = text.replace(spelling, _filled(token, spelling))
        return text

    def _unknown(self, value: Any) -> str:
        return dumps(_walk(value, lambda text, key: text if key in ("", "type") else mask(text)))

    def _broken(
        self,
        text: str,
        value: Any,
        error: MalformedMessageError,
        sender: Role,
        limits: Limits,
    ) -> str | None:
        if value is None:
            masked = _LETTERS.sub(lambda found: _filled("x", found[0]), text)
        else:
            kept = ("", *_UNSPOKEN_KEYS)
            masked = dumps(_walk(value, lambda text, key: text if key in kept else mask(text)))
        wrong = (error.reason, error.type, error.field)
        return masked if _wrong(masked, sender, limits) == wrong else None


def _wrong(text: str, sender: Role, limits: Limits) -> tuple[str, str | None, str | None] | None:
    """What a core tells of a broken message; None: it is not broken."""
    try:
        codec.decode(text, sender=sender, limits=limits)
    except MalformedMessageError as error:
        return error.reason, error.type, error.field
    return None


def _as_long(text: str, original: str) -> str:
    """With blanks at its end, where they mean nothing, a text as long as it was."""
    return text + " " * (len(original.encode(errors="replace")) - len(text.encode()))
