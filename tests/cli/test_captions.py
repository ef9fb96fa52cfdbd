"""Captions: each sentence once, not before the voice, and not before those in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from navtalk_asyncio.cli.captions import Captions
from navtalk_asyncio.testing import run_virtual
from navtalk_proto.events import (
    Event,
    Ready,
    ResponseGenerated,
    ResponseInterrupted,
    ResponseStarted,
    ResponseText,
)

BEGUN = ResponseStarted(response_id="r")


def shown(script: Callable[[Captions], Any]) -> list[tuple[float, str]]:
    """What a script made be shown, at ten characters a second of a virtual clock."""
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        start = anyio.current_time()
        captions = Captions(
            lambda text: seen.append((round(anyio.current_time() - start, 3), text)), rate=10.0
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(captions.run)
            await script(captions)
            await anyio.sleep(60)
            tasks.cancel_scope.cancel()

    run_virtual(main())
    return seen


def say(captions: Captions, *events: Event) -> None:
    for event in events:
        captions.take(event)


def test_sentences_follow_the_voice() -> None:
    async def script(captions: Captions) -> None:
        say(captions, BEGUN, ResponseText(response_id="r", delta="I am "), Ready())
        say(captions, ResponseText(response_id="r", delta="Lea. How\nare you"))
        say(captions, ResponseGenerated(response_id="r", text="I am Lea. How\nare you?"))
        await anyio.sleep(2)
        captions.heard()
        captions.heard()

    assert shown(script) == [(2.0, "I am Lea."), (2.9, "How are you?")]


def test_a_sentence_is_shown_when_it_is_whole() -> None:
    async def script(captions: Captions) -> None:
        say(captions, BEGUN, ResponseText(response_id="r", delta="Wait"))
        captions.heard()
        await anyio.sleep(1)
        say(captions, ResponseText(response_id="r", delta=". There is more"))
        await anyio.sleep(5)
        say(captions, ResponseGenerated(response_id="r", text="Wait. There is more"))

    assert shown(script) == [(1.0, "Wait."), (6.0, "There is more")]


def test_what_was_interrupted_is_not_shown() -> None:
    async def script(captions: Captions) -> None:
        say(captions, BEGUN, ResponseGenerated(response_id="r", text="One two three. Four."))
        captions.heard()
        await anyio.sleep(0.5)
        say(captions, ResponseInterrupted(response_id="r", text="", heard=""))

    assert shown(script) == [(0.0, "One two three.")]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_answer_without_words_shows_nothing(text: str) -> None:
    async def script(captions: Captions) -> None:
        say(captions, BEGUN, ResponseGenerated(response_id="r", text=text))
        captions.heard()

    assert shown(script) == []


def test_the_next_answer_waits_for_its_voice() -> None:
    async def script(captions: Captions) -> None:
        say(captions, BEGUN, ResponseGenerated(response_id="r", text="One."))
        captions.heard()
        await anyio.sleep(3)
        say(captions, BEGUN, ResponseGenerated(response_id="s", text="Two."))
        await anyio.sleep(1)
        captions.heard()

    assert shown(script) == [(0.0, "One."), (4.0, "Two.")]
