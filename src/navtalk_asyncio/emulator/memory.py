"""What the human remembers of one session: what was said, its settings, and its function calls.

No I/O and no clock. Everything that a client can make it hold is bounded, and what is forgotten is
counted.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define

from navtalk_asyncio.emulator.avatars import Avatar
from navtalk_asyncio.emulator.brain import Call, CallResult, Conversation, Said
from navtalk_asyncio.emulator.calls import Tool, read_tools
from navtalk_proto.errors import NavTalkError
from navtalk_proto.wire.messages import FunctionCallDone, JsonObject

__all__ = ["HISTORY", "MAX_CALLS", "REMEMBERED_TEXT", "Memory", "ResultError"]

REMEMBERED_TEXT: Final = 4000
"""Characters that are kept of a text of the user, and of a tool's result."""

HISTORY: Final = 200
"""Entries of the history; the oldest give way."""

MAX_CALLS: Final = 64
"""Function calls that may still be answered; the oldest give way."""


class ResultError(NavTalkError):
    """A tool result without a call: of an unknown id, or of one that was answered already."""

    code = "tool-result"
    hint = "answer each function call once, with the call_id that it came with"


@define
class _Issued:
    name: str
    answered: bool = False
    output: str | None = None


class Memory:
    """Belongs to one session; `avatar` gives what the client does not configure."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._voice = avatar.voice
        self._prompt = avatar.prompt
        self._tools: tuple[Tool, ...] = ()
        self._history: deque[Said] = deque(maxlen=HISTORY)
        self._newest: tuple[str, ...] = ()
        self._calls: dict[str, _Issued] = {}
        self._open: list[str] = []  # Calls of the last reply that no result came for.
        self._results: list[CallResult] = []
        self._turn = 0
        self._utterances = 0
        self.forgotten: int = 0
        """Entries of the history, calls and results that gave way."""

    # ---- what the client says

    def configure(
        self,
        *,
        voice: str | None = None,
        prompt: str | None = None,
        tools: Iterable[JsonObject] | None = None,
    ) -> None:
        """Take settings; None and an empty text keep what is (protocol.md 5.7)."""
        self._voice = voice or self._voice
        self._prompt = prompt or self._prompt
        if tools is not None:
            self._tools = read_tools(tools)

    def update(self, session: JsonObject) -> None:
        """Take the early v2 settings (protocol.md 5.18); what has another type is left out."""
        voice, prompt, tools = (session.get(key) for key in ("voice", "instructions", "tools"))
        self.configure(
            voice=voice if isinstance(voice, str) else None,
            prompt=prompt if isinstance(prompt, str) else None,
            tools=[one for one in tools if isinstance(one, Mapping)]
            if isinstance(tools, list | tuple)
            else None,
        )

    def message(self, texts: Iterable[str], role: str) -> None:
        """Take a message: history, or typed text. Only a user's is ever answered (5.9)."""
        kept = tuple(text[:REMEMBERED_TEXT] for text in texts)
        if role == "user":
            self._settle()
            self._newest = kept[-HISTORY:]
            self.forgotten += len(kept) - len(self._newest)
        else:
            for text in kept:
                self.said(role, text)

    def said(self, role: str, text: str) -> None:
        """Add an entry to the history; an empty text is none."""
        if not text:
            return
        self.forgotten += len(self._history) == HISTORY
        self._history.append(Said(role=role, text=text))

    def _settle(self) -> None:
        newest, self._newest = self._newest, ()
        for text in newest:
            self.said("user", text)

    # ---- function calls

    @property
    def waiting(self) -> bool:
        """Whether a call of the last reply has no result yet."""
        return bool(self._open)

    @property
    def typed(self) -> bool:
        """Whether a user's message waits for its answer."""
        return bool(self._newest)

    @property
    def anything_new(self) -> bool:
        """Whether something waits for its answer."""
        return bool(self._newest or self._results)

    def issue(self, calls: Iterable[Call]) -> list[FunctionCallDone]:
        """Number calls; returns their messages, which are to be sent at once (5.16).

        Raises ValueError for arguments that are not JSON.
        """
        response, messages = f"resp_{uuid.uuid4().hex[:12]}", []
        for index, call in enumerate(calls):
            call_id = f"call_{uuid.uuid4().hex[:12]}"
            arguments = json.dumps(call.arguments, allow_nan=False)
            messages.append(
                FunctionCallDone(
                    call_id=call_id,
                    name=call.name,
                    arguments=arguments,
                    raw_data={
                        "type": "response.function_call_arguments.done",
                        "event_id": f"event_{uuid.uuid4().hex[:12]}",
                        "response_id": response,
                        "item_id": f"item_{uuid.uuid4().hex[:12]}",
                        "output_index": index,
                        "call_id": call_id,
                        "name": call.name,
                        "arguments": arguments,
                    },
                )
            )
        for message in messages:
            if len(self._calls) == MAX_CALLS:
                self._calls.pop(next(iter(self._calls)))
                self.forgotten += 1
            self._calls[message.call_id] = _Issued(message.name)
        self._open = [message.call_id for message in messages if message.call_id in self._calls]
        return messages

    def answered(self, call_id: str, output: str) -> None:
        """Take a result. Raises ResultError for a call that is unknown or answered already."""
        issued = self._calls.get(call_id)
        if issued is None:
            raise ResultError("a result came for a call_id of no function call")
        if issued.answered:
            raise ResultError(f"a second result came for a call of {issued.name}")
        issued.answered = True
        if call_id in self._open:
            self._open.remove(call_id)
        self._keep(CallResult(name=issued.name, output=output[:REMEMBERED_TEXT]))

    def give_up(self) -> None:
        """Take it that no more results come for the last reply's calls; a late one still counts."""
        for call_id in self._open:
            self._keep(CallResult(name=self._calls[call_id].name, output=None))
        self._open = []

    def wait_no_more(self) -> None:
        """Wait no longer, and say nothing about it: the conversation goes on."""
        self._open = []

    def keep(self, results: Iterable[CallResult]) -> None:
        """Take results back that were not told."""
        for result in results:
            self._keep(result)

    def _keep(self, result: CallResult) -> None:
        if len(self._results) == MAX_CALLS:
            self._results.pop(0)
            self.forgotten += 1
        self._results.append(result)

    # ---- turns

    def asked(self) -> Conversation:
        """Begin the answer to everything that is new; returns what the brain is told."""
        text = " ".join(self._newest)[:REMEMBERED_TEXT]
        conversation = self._conversation(text=text)
        self._settle()
        return conversation

    def heard(self, pcm: bytes) -> Conversation:
        """Begin the answer to an utterance, which is newer than what was typed before it."""
        self._settle()
        self._utterances += 1
        return self._conversation(heard=pcm)

    def _conversation(self, *, text: str = "", heard: bytes | None = None) -> Conversation:
        self._turn += 1
        results, self._results = tuple(self._results), []
        self._open = []
        return Conversation(
            text=text,
            heard=heard,
            results=results,
            history=tuple(self._history),
            turn=self._turn,
            utterances=self._utterances,
            voice=self._voice,
            prompt=self._prompt,
            first_message=self._avatar.first_message,
            tools=self._tools,
        )
