"""What was said in a session: the turns of both speakers and the function calls, in order.

A history outlives its session: it is continued in the next one, or exported, and what the user said
is replayed there (protocol.md 5.9).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, TypeAlias, overload

from attrs import evolve, field, frozen

from navtalk_proto.errors import HistoryError, MalformedMessageError
from navtalk_proto.events import (
    Event,
    FunctionCall,
    ResponseDone,
    ResponseFailed,
    ResponseInterrupted,
    UserTurn,
)
from navtalk_proto.limits import MIB, Limits
from navtalk_proto.wire import codec, jsontext
from navtalk_proto.wire.messages import JsonObject, JsonValue, UserMessage

__all__ = [
    "HISTORY_CHARACTERS",
    "HISTORY_ENTRIES",
    "HISTORY_VERSION",
    "REPLAYED_MESSAGES",
    "CallEntry",
    "Ending",
    "Entry",
    "History",
    "HumanTurn",
    "Past",
    "Turn",
]

HISTORY_ENTRIES: Final = 1000
"""Entries that a history keeps unless told otherwise: a day of small talk."""

HISTORY_CHARACTERS: Final = 1 * MIB
"""Characters in all its entries: about 20 hours of speech."""

HISTORY_VERSION: Final = 1
"""Of the exported JSON."""

REPLAYED_MESSAGES: Final = 100
"""User messages that a new session is told. Stock clients send 3 or all of a page's (5.9)."""

_FORMAT: Final = "navtalk history"
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = 6
"""Characters of JSON that one character may need, as ``\\u0000``."""
_ENTRY_OVERHEAD: Final = 256
"""Characters of JSON around the texts of one entry."""


def _sound(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no JSON that is sent can hold."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class Ending(Enum):
    """How a turn of the human ended."""

    DONE = "done"
    """It was spoken to its end, by the reckoning of ``ClientConfig.speech_rate``."""
    INTERRUPTED = "interrupted"
    """The user spoke into it, or interrupted it, or the session ended."""
    FAILED = "failed"
    """It never began, or broke off."""


@frozen(kw_only=True)
class HumanTurn:
    """What the human said, whole.

    `text` is what was generated, `heard` the part of it that can have been spoken: all of a turn
    that is done, the reckoned part of an interrupted one, nothing of a failed one, of which it is
    not known. `reason` says why a turn failed.
    """

    text: str
    heard: str
    ending: Ending = Ending.DONE
    reason: str = ""


@frozen(kw_only=True)
class CallEntry:
    """A function call. `output` is our answer to it, None while there is none."""

    call_id: str
    name: str
    arguments: str
    output: str | None = None


Turn: TypeAlias = UserTurn | HumanTurn
"""A finished turn of one speaker."""

Entry: TypeAlias = UserTurn | HumanTurn | CallEntry
"""One entry of a history."""


def _texts(entry: Entry) -> tuple[str, ...]:
    if isinstance(entry, UserTurn):
        return (entry.text,)
    if isinstance(entry, HumanTurn):
        return (entry.text, entry.heard, entry.reason)
    return (entry.call_id, entry.name, entry.arguments, entry.output or "")


def _size(entry: Entry) -> int:
    return sum(map(len, _texts(entry)))


class History(Sequence[Entry]):
    """The entries of one conversation, oldest first; continued by every session it is given to.

    Bounded by `entries` and by `characters`, the sum of all texts: the oldest entries give way, and
    an entry that is larger alone is not taken. Both are counted in :attr:`dropped`. Entries are
    frozen; a slice and :meth:`snapshot` are copies that do not change. Give one history to one
    session at a time: two would write their turns in between each other's.

    A turn is entered when it is finished. An interrupted answer stays, marked, with what was heard
    of it. Lone surrogates in texts become U+FFFD.
    """

    def __init__(
        self,
        seed: Sequence[Entry] = (),
        *,
        entries: int = HISTORY_ENTRIES,
        characters: int = HISTORY_CHARACTERS,
    ) -> None:
        if entries < 1 or characters < 1:
            raise ValueError("a history keeps at least one entry, and one character")
        self.max_entries: Final = entries
        self.max_characters: Final = characters
        self.dropped: int = 0
        """Entries, and answers to calls, that were too many or too large."""
        self._entries: deque[Entry] = deque()
        self._characters = 0
        for entry in seed:
            self.add(entry)

    # ---- reading

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return self.snapshot()[index]
        return self._entries[index]

    def __iter__(self) -> Iterator[Entry]:
        # Over a copy: a session may add to it while the loop awaits.
        return iter(self.snapshot())

    def __repr__(self) -> str:
        return (
            f"<History of {len(self._entries)} entries, "
            f"{self._characters} characters, {self.dropped} dropped>"
        )

    def snapshot(self) -> tuple[Entry, ...]:
        """All entries as they are now."""
        return tuple(self._entries)

    @property
    def characters(self) -> int:
        """The characters of all entries' texts."""
        return self._characters

    # ---- writing

    def add(self, entry: Entry) -> None:
        """Append an entry; for seeding, and for what a session does not know of."""
        entry = _clean(entry)
        size = _size(entry)
        if size > self.max_characters:
            self.dropped += 1
            return
        self._entries.append(entry)
        self._characters += size
        self._give_way()

    def observe(self, event: Event) -> Entry | None:
        """Called by the session with each event, in order; returns the entry that it made.

        Never raises.
        """
        entry: Entry
        match event:
            case UserTurn():
                entry = event
            case ResponseDone():
                entry = HumanTurn(text=event.text, heard=event.text)
            case ResponseInterrupted():
                entry = HumanTurn(text=event.text, heard=event.heard, ending=Ending.INTERRUPTED)
            case ResponseFailed():
                entry = HumanTurn(
                    text=event.text, heard="", ending=Ending.FAILED, reason=event.reason
                )
            case FunctionCall():
                entry = CallEntry(call_id=event.call_id, name=event.name, arguments=event.arguments)
            case _:
                return None
        entry = _clean(entry)
        self.add(entry)
        return entry

    def answered(self, call_id: str, output: str) -> None:
        """A call was answered; called by the session. The newest of this id is the one.

        An id that is unknown, or gave way, is ignored; an output that is too large is not kept.
        """
        call_id, output = _sound(call_id), _sound(output)
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            if isinstance(entry, CallEntry) and entry.call_id == call_id:
                break
        else:
            return
        if entry.output is not None:
            return
        if _size(entry) + len(output) > self.max_characters:
            self.dropped += 1
            return
        self._entries[index] = evolve(entry, output=output)
        self._characters += len(output)
        self._give_way()

    def _give_way(self) -> None:
        while len(self._entries) > self.max_entries or self._characters > self.max_characters:
            self._characters -= _size(self._entries.popleft())
            self.dropped += 1

    # ---- the next session

    def replay(
        self, *, newest: int = REPLAYED_MESSAGES, limits: Limits | None = None
    ) -> tuple[UserMessage, ...]:
        """What a new session is told of this one: the user's turns, oldest first.

        One message per turn, because stock clients send no other entries (protocol.md 5.9); empty
        turns are left out. Of more than `newest` turns, or ``limits.queued_intents``, the newest
        are taken, as long as all their JSON is within ``limits.queued_bytes``; a single one beyond
        ``limits.client_message`` is left out.
        """
        limits = limits or Limits()
        room = min(newest, limits.queued_intents)
        characters = limits.queued_bytes
        found: list[UserMessage] = []
        for entry in reversed(self._entries):
            if len(found) >= room:
                break
            if not isinstance(entry, UserTurn) or not entry.text.strip():
                continue
            message = UserMessage(texts=(entry.text,))
            text = codec.encode(message)
            if len(text.encode()) > limits.client_message:
                continue
            characters -= len(text)
            if characters < 0:
                break
            found.append(message)
        return tuple(reversed(found))

    # ---- JSON

    def to_json(self) -> str:
        """The entries as JSON text, for :meth:`from_json`. It holds all that was said."""
        return jsontext.dumps(
            {
                "format": _FORMAT,
                "version": HISTORY_VERSION,
                "entries": [_to_json(entry) for entry in self._entries],
            }
        )

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        *,
        entries: int = HISTORY_ENTRIES,
        characters: int = HISTORY_CHARACTERS,
    ) -> History:
        """A history from :meth:`to_json`'s text, of which the bounds keep the newest entries.

        Raises HistoryError for a text that is not one, that has another version, or that is larger
        than JSON of a history within the bounds can be.
        """
        history = cls(entries=entries, characters=characters)
        # In UTF-8 a character that is not escaped has at most 4 bytes; escaped, 6 of ASCII.
        largest = _ESCAPED * characters + _ENTRY_OVERHEAD * (entries + 1)
        if len(text) > largest:
            raise HistoryError(f"is longer than {largest} characters")
        problem = "is not an object"
        value: JsonValue = None
        try:
            value = jsontext.loads(text)
        except MalformedMessageError as error:
            problem = error.reason
        # Not raised above: the parser's exceptions, which would be its context, hold the text.
        if not isinstance(value, dict):
            raise HistoryError(problem)
        if value.get("format") != _FORMAT:
            raise HistoryError(f"is not {_FORMAT!r}", field="format")
        version = value.get("version")
        if version != HISTORY_VERSION or isinstance(version, bool):
            raise HistoryError(f"this program reads version {HISTORY_VERSION}", field="version")
        items = value.get("entries")
        if not isinstance(items, list):
            raise HistoryError("is not an array", field="entries")
        for index, item in enumerate(items):
            history.add(_from_json(item, f"entries[{index}]"))
        return history


def _clean(entry: Entry) -> Entry:
    if not any(map(_LONE_SURROGATE.search, _texts(entry))):
        return entry
    if isinstance(entry, UserTurn):
        return evolve(entry, text=_sound(entry.text))
    if isinstance(entry, HumanTurn):
        return evolve(
            entry,
            text=_sound(entry.text),
            heard=_sound(entry.heard),
            reason=_sound(entry.reason),
        )
    return evolve(
        entry,
        call_id=_sound(entry.call_id),
        name=_sound(entry.name),
        arguments=_sound(entry.arguments),
        output=None if entry.output is None else _sound(entry.output),
    )


def _to_json(entry: Entry) -> JsonObject:
    if isinstance(entry, UserTurn):
        return {"kind": "user", "text": entry.text, "typed": entry.typed}
    if isinstance(entry, HumanTurn):
        return {
            "kind": "human",
            "text": entry.text,
            "heard": entry.heard,
            "ending": entry.ending.value,
            "reason": entry.reason,
        }
    return {
        "kind": "call",
        "call_id": entry.call_id,
        "name": entry.name,
        "arguments": entry.arguments,
        "output": entry.output,
    }


_KEYS: Final = {
    "user": frozenset({"kind", "text", "typed"}),
    "human": frozenset({"kind", "text", "heard", "ending", "reason"}),
    "call": frozenset({"kind", "call_id", "name", "arguments", "output"}),
}


def _from_json(item: JsonValue, path: str) -> Entry:
    if not isinstance(item, dict):
        raise HistoryError("is not an object", field=path)
    kind = item.get("kind")
    keys = _KEYS.get(kind) if isinstance(kind, str) else None
    if keys is None:
        raise HistoryError(f"is none of {', '.join(_KEYS)}", field=f"{path}.kind")
    for key in sorted(keys - item.keys()):
        raise HistoryError("is missing", field=f"{path}.{key}")
    if item.keys() - keys:
        # Not named: a key may be as long as the text.
        raise HistoryError(f"has a key that version {HISTORY_VERSION} does not know", field=path)

    def text(key: str) -> str:
        value = item[key]
        if not isinstance(value, str):
            raise HistoryError("is not a string", field=f"{path}.{key}")
        return value

    if kind == "user":
        typed = item["typed"]
        if not isinstance(typed, bool):
            raise HistoryError("is not true or false", field=f"{path}.typed")
        return UserTurn(text=text("text"), typed=typed)
    if kind == "human":
        endings = {one.value: one for one in Ending}
        ending = endings.get(text("ending"))
        if ending is None:
            raise HistoryError(f"is none of {', '.join(endings)}", field=f"{path}.ending")
        return HumanTurn(
            text=text("text"), heard=text("heard"), ending=ending, reason=text("reason")
        )
    return CallEntry(
        call_id=text("call_id"),
        name=text("name"),
        arguments=text("arguments"),
        output=None if item["output"] is None else text("output"),
    )


@frozen(kw_only=True)
class Past:
    """What a new session starts from: the history it continues, and what of it is replayed."""

    history: History = field(factory=History)
    messages: tuple[UserMessage, ...] = ()

    @classmethod
    def of(
        cls,
        given: History | Sequence[UserMessage | str],
        *,
        default: Sequence[UserMessage] = (),
        limits: Limits | None = None,
    ) -> Past:
        """From what an adapter's ``connect()`` is given; `default` is the configuration's.

        A History is continued, and its user's turns are replayed. Of other sequences every message
        is replayed as it is, and a new history begins with those of the user. Raises TypeError for
        something else.
        """
        if isinstance(given, History):
            return cls(history=given, messages=given.replay(limits=limits))
        if isinstance(given, str):
            raise TypeError("history is a History or a sequence of messages, not one text")
        past = cls(
            messages=tuple(
                UserMessage(texts=(one,)) if isinstance(one, str) else one
                for one in given or default
            )
        )
        for message in past.messages:
            if not isinstance(message, UserMessage):
                raise TypeError(f"history has user messages and texts, no {type(message).__name__}")
            if message.role == "user":
                past.history.add(UserTurn(text=" ".join(message.texts), typed=True))
        return past
