"""Function calls, pictures, history and barge-in, seen on the wire, mostly in virtual time."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from navtalk_asyncio.emulator import Call, CallResult, Conversation, EchoBrain, Reply, Said
from navtalk_asyncio.emulator.tracks import VoiceTrack
from navtalk_asyncio.emulator.voice_activity import rms_dbfs
from navtalk_asyncio.testing import run_virtual

Visiting = Callable[..., AbstractAsyncContextManager[Any]]

CREATE = {"type": "response.create"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}


class Mute:
    """Synthesises nothing, so that no process runs beside virtual time."""

    name = "mute"

    async def synthesise(self, text: str) -> bytes:
        return b""


def echo() -> EchoBrain:
    return EchoBrain(Mute())


class Noting:
    """Answers with what `replies` says in its turn, then "Yes."; notes what it was asked."""

    def __init__(self, *replies: Reply | None) -> None:
        self.replies = list(replies)
        self.asked: list[Conversation] = []

    async def hear(self, conversation: Conversation) -> str:
        return "spoken"

    async def reply(self, conversation: Conversation) -> Reply | None:
        self.asked.append(conversation)
        return self.replies.pop(0) if self.replies else Reply(text="Yes.")


def tools(*announced: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(announced)
    return {"type": "realtime.input_function_call", "data": {"content": content}}


def typed(text: str) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return {"type": "conversation.item.create", "item": item}


def result(call_id: str, output: str) -> dict[str, Any]:
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return {"type": "conversation.item.create", "item": item}


def newer_result(call_id: str, output: Any, reply: int = 1) -> dict[str, Any]:
    return {
        "type": "realtime.function_call_output",
        "data": {"call_id": call_id, "output": output, "reply": reply},
    }


async def called(client: Any) -> str:
    """The id of the call that comes next."""
    frame = await client.next("function_call_arguments.done")
    call_id: str = frame["data"]["call_id"]
    return call_id


# ---- function calls (protocol.md 5.16, 5.17, 6.4)


def test_a_typed_text_that_names_a_tool_calls_it(visiting: Visiting) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send(tools(WEATHER))
            await client.type('What is the weather in "Paris" for 3 days?')
            await client.next(".audio.done")
            # Nothing is said, and audio.done ends it nonetheless: clients hang up on it.
            assert client.after_ready == [
                "realtime.response.function_call_arguments.done",
                "realtime.response.audio.done",
            ]
            frame = client.frames[-2]
            assert set(frame) == {"type", "data", "raw_data"}
            data, raw = frame["data"], frame["raw_data"]
            assert data == {
                "function_name": "get_weather",
                "name": "get_weather",
                "call_id": raw["call_id"],
                "arguments": {"city": "Paris", "days": 3},
            }
            assert raw["type"] == "response.function_call_arguments.done"
            assert raw["name"] == "get_weather"
            assert json.loads(raw["arguments"]) == data["arguments"]
            assert isinstance(raw["output_index"], int)
            assert all(raw[key] for key in ("event_id", "response_id", "item_id"))

    run_virtual(main())


@pytest.mark.parametrize(
    "announcement",
    [
        tools(WEATHER),
        {
            "type": "realtime.input_config",
            "data": {"content": json.dumps({"voice": "", "tools": [WEATHER]})},
        },
        {"type": "session.update", "session": {"tools": [WEATHER]}},
    ],
    ids=["input_function_call", "input_config", "session.update"],
)
def test_every_way_to_announce_a_tool(visiting: Visiting, announcement: dict[str, Any]) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send(announcement)
            await client.type("weather")
            assert await called(client)

    run_virtual(main())


@pytest.mark.parametrize(
    "answers",
    [
        lambda call_id: [result(call_id, '{"sky": "clear"}'), CREATE],
        lambda call_id: [newer_result(call_id, '{"sky": "clear"}')],
        lambda call_id: [newer_result(call_id, {"sky": "clear"})],
        lambda call_id: [newer_result(call_id, {"sky": "clear"}, reply=0), CREATE],
        lambda call_id: [
            {
                "type": "realtime.input_function_call_output",
                "data": {"call_id": call_id, "result": {"sky": "clear"}},
            }
        ],
    ],
    ids=["item and create", "newer", "newer, object", "newer, no reply", "synonym"],
)
def test_the_result_is_told_at_once(
    visiting: Visiting, answers: Callable[[str], list[dict[str, Any]]]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with visiting(echo()) as client:
            await client.send(tools(WEATHER))
            await client.type("weather")
            call_id = await called(client)
            await client.next(".audio.done")
            await client.send(*answers(call_id))
            assert await client.said() == "get_weather says: sky clear."
            assert loop.time() == start
            # And no second time, when the result would have been waited for no longer.
            await asyncio.sleep(60)
            await client.type("Hello")
            assert await client.said() == "You wrote: Hello"
            assert client.types().count("error") == 0

    run_virtual(main())


def test_a_result_that_is_only_for_the_record_is_told_with_the_next_answer(
    visiting: Visiting,
) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send(tools(WEATHER))
            await client.type("weather")
            await client.send(newer_result(await called(client), "42", reply=0))
            await asyncio.sleep(60)
            await client.type("Hello")
            assert await client.said() == "get_weather says: 42. You wrote: Hello"

    run_virtual(main())


def test_no_result_is_waited_for_ten_seconds_and_then_it_goes_on(visiting: Visiting) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with visiting(echo()) as client:
            await client.send(tools(WEATHER))
            await client.type("weather")
            call_id = await called(client)
            since = loop.time()
            # A wish for an answer is one for an answer with the result.
            await client.send(CREATE)
            assert await client.said() == "get_weather gave no result."
            assert loop.time() - since == pytest.approx(10.0)
            await client.send(result(call_id, '"late"'), CREATE)
            assert await client.said() == "get_weather says: late."

    run_virtual(main())


def test_the_time_for_a_result_is_an_option(visiting: Visiting) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with visiting(echo(), tool_timeout=2.5) as client:
            await client.send(tools(WEATHER))
            await client.type("weather")
            await called(client)
            since = loop.time()
            assert await client.said() == "get_weather gave no result."
            assert loop.time() - since == pytest.approx(2.5)

    run_virtual(main())


def test_a_conversation_that_goes_on_waits_for_no_result(
    visiting: Visiting, tone: Callable[[float], bytes]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        brain = Noting(Reply(text="", calls=(Call(name="f"),)))
        async with visiting(brain) as client:
            await client.type("call")
            call_id = await called(client)
            await client.send(typed("never mind"), CREATE)
            assert await client.said() == "Yes."
            assert loop.time() == start
            await asyncio.sleep(60)
            audio = base64.b64encode(tone(0.5) + bytes(48_000)).decode()
            await client.send({"type": "input_audio_buffer.append", "audio": audio})
            assert await client.said() == "Yes."
            await client.send(result(call_id, "late"))
            await client.type("and now?")
            await client.said()
        assert [asked.results for asked in brain.asked] == [
            (), (), (), (CallResult(name="f", output="late"),),
        ]  # fmt: skip

    run_virtual(main())


def test_one_answer_is_made_of_all_results_of_a_reply(visiting: Visiting) -> None:
    async def main() -> None:
        brain = Noting(Reply(text="One moment.", calls=(Call(name="f"), Call(name="g"))))
        async with visiting(brain) as client:
            await client.type("both")
            first, second = await called(client), await called(client)
            await client.next(".audio.done")
            # Text before the calls, and audio.done after them.
            assert [kind.partition("response.")[2] for kind in client.after_ready] == [
                "audio_transcript.delta",
                "audio_transcript.delta",
                "audio_transcript.done",
                "function_call_arguments.done",
                "function_call_arguments.done",
                "audio.done",
            ]
            await client.send(result(second, "2"), CREATE, result(first, "1"), CREATE)
            assert await client.said() == "Yes."
            await client.type("more")
            await client.said()
        assert brain.asked[1].results == (
            CallResult(name="g", output="2"),
            CallResult(name="f", output="1"),
        )
        # Both wishes for an answer were for this one.
        assert brain.asked[-1].text == "more"
        assert brain.asked[-1].results == ()

    run_virtual(main())


def test_what_was_said_with_the_call_is_said_to_its_end(
    visiting: Visiting, tone: Callable[[float], bytes]
) -> None:
    async def main() -> None:
        brain = Noting(
            Reply(text="One moment.", pcm=tone(2.0), calls=(Call(name="f"),)),
            Reply(text="Done.", pcm=tone(1.0)),
        )
        async with visiting(brain) as client:
            await client.type("call")
            await client.send(result(await called(client), "1"), CREATE)
            while await client.said() != "Done.":
                pass
            assert client.mouthpiece.queued_seconds == pytest.approx(3.0)

    run_virtual(main())


def test_barge_in_lets_go_of_the_call(visiting: Visiting, tone: Callable[[float], bytes]) -> None:
    async def main() -> None:
        async with visiting(Noting(Reply(text="", calls=(Call(name="f"),)))) as client:
            await client.type("call")
            call_id = await called(client)
            await client.send({"type": "realtime.input_audio_buffer.clear", "data": {}})
            await client.send(CREATE)  # Nothing is waited for any more.
            assert await client.said() == "Yes."
            await client.send(newer_result(call_id, "1"))
            assert await client.said() == "Yes."

    run_virtual(main())


class Slow(Noting):
    """Calls a function, and thinks about what came of it until it is interrupted, once."""

    def __init__(self) -> None:
        super().__init__(Reply(text="", calls=(Call(name="f"),)))
        self.thinking = asyncio.Event()

    async def reply(self, conversation: Conversation) -> Reply | None:
        answer = await super().reply(conversation)
        if conversation.results and not self.thinking.is_set():
            self.thinking.set()
            await asyncio.Event().wait()
        return answer


def test_a_result_that_was_not_told_yet_is_told_after_an_interruption(visiting: Visiting) -> None:
    async def main() -> None:
        brain = Slow()
        async with visiting(brain) as client:
            await client.type("call")
            await client.send(newer_result(await called(client), "1"))
            await brain.thinking.wait()
            await client.send(CREATE)  # It is being answered: no second answer is begun.
            await client.type("and?")
            assert await client.said() == "Yes."
        told = (CallResult(name="f", output="1"),)
        assert [asked.results for asked in brain.asked] == [(), told, told]

    run_virtual(main())


@pytest.mark.parametrize("answered", [True, False], ids=["twice", "unknown"])
def test_a_result_too_many_is_an_error_and_the_session_lives(
    visiting: Visiting, answered: bool
) -> None:
    async def main() -> None:
        async with visiting(Noting(Reply(text="", calls=(Call(name="f"),)))) as client:
            call_id = "call_EXAMPLE"
            if answered:
                await client.type("call")
                call_id = await called(client)
                await client.send(newer_result(call_id, "1"))
                await client.said()
            await client.send(newer_result(call_id, "2"))
            error = await client.next("response.error")
            assert error["data"]["code"] == "tool-result"
            assert error["data"]["message"] == (
                "a second result came for a call of f"
                if answered
                else "a result came for a call_id of no function call"
            )
            await client.type("Hello")
            assert await client.said() == "Yes."

    run_virtual(main())


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ((Call(name="f", arguments={"x": float("nan")}),), "the arguments of f are not JSON"),
        ((Call(name="f", arguments={"x": object()}),), "the arguments of f are not JSON"),  # type: ignore[dict-item]
        ((Call(name="f", arguments={"x": "y" * 70_000}),), "can be told"),
        ((Call(name="\ud83d"),), "a lone surrogate"),
        ((Call(name="f"),) * 17, "the brain calls 17 functions, 16 can be called"),
    ],
    ids=["nan", "object", "long", "surrogate", "many"],
)
def test_a_call_that_cannot_be_made_is_an_error(
    visiting: Visiting, calls: tuple[Call, ...], reason: str
) -> None:
    async def main() -> None:
        async with visiting(Noting(Reply(text="Now:", calls=calls))) as client:
            await client.type("call")
            error = await client.next("response.error")
            assert reason in error["data"]["message"]
            await client.next(".audio.done")
            await client.type("Hello")
            assert await client.said() == "Yes."

    run_virtual(main())


def test_a_brain_may_say_nothing(visiting: Visiting) -> None:
    async def main() -> None:
        async with visiting(Noting(None)) as client:
            await client.type("silence")
            await asyncio.sleep(600)
            await client.type("Hello")
            assert await client.said() == "Yes."
            assert client.after_ready == [
                "realtime.response.audio_transcript.delta",
                "realtime.response.audio_transcript.done",
                "realtime.response.audio.done",
            ]

    run_virtual(main())


# ---- history and settings (5.7, 5.9, 5.18)


@pytest.mark.parametrize(
    "contents",
    [
        [[{"type": "input_text", "text": "I am Ana."}], [{"type": "input_text", "text": "Tea."}]],
        [[{"type": "input_text", "text": "I am Ana."}, {"type": "input_text", "text": "Tea."}]],
        ["[{type=input_text, text=I am Ana.}, {type=input_text, text=Tea.}]"],
    ],
    ids=["one each", "Android", "Android as a string"],
)
def test_replayed_history_is_known(visiting: Visiting, contents: list[Any]) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            for content in contents:
                item = {"type": "message", "role": "user", "content": content}
                await client.send({"type": "conversation.item.create", "item": item})
            await client.type("What did I say?")
            assert await client.said() == "You said 2 things: I am Ana.; Tea."

    run_virtual(main())


def test_a_brain_knows_what_both_said_and_what_is_configured(
    visiting: Visiting, tone: Callable[[float], bytes]
) -> None:
    async def main() -> None:
        brain = Noting()
        async with visiting(brain) as client:
            content = json.dumps({"voice": "cedar", "prompt": "Be a receptionist."})
            await client.send({"type": "realtime.input_config", "data": {"content": content}})
            await client.type("typed")
            await client.said()
            audio = base64.b64encode(tone(0.5) + bytes(48_000)).decode()
            await client.send({"type": "input_audio_buffer.append", "audio": audio})
            await client.said()
            await client.send(CREATE)
            await client.said()
        first, second, third = brain.asked
        assert (first.voice, first.prompt) == ("cedar", "Be a receptionist.")
        assert (first.text, first.heard, first.history) == ("typed", None, ())
        yes = Said(role="assistant", text="Yes.")
        assert second.text == "spoken"
        assert second.heard is not None
        assert second.history == (Said(role="user", text="typed"), yes)
        assert third.history == (*second.history, Said(role="user", text="spoken"), yes)
        assert (third.text, third.turn, third.utterances) == ("", 3, 1)

    run_virtual(main())


# ---- pictures (5.14); real time, because they are decoded in a thread


def image(width: int, height: int, reply: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "JPEG")
    content = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "realtime.input_image", "data": {"content": content, "reply": reply}}


BROKEN = {"type": "realtime.input_image", "data": {"content": "data:image/jpeg;base64,/9j/4AAQ"}}


def test_a_picture_is_acknowledged_in_the_reply_with_its_size(visiting: Visiting) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send(image(64, 48, reply=1))
            assert await client.said() == "I see a picture of 64 x 48 pixels."
            # As context: with the next answer, the newest one only, and once.
            await client.send(image(10, 10, reply=0), image(20, 30, reply=0))
            await client.type("Hello")
            assert await client.said() == "You wrote: Hello I see a picture of 20 x 30 pixels."
            await client.type("Hello")
            assert await client.said() == "You wrote: Hello"

    asyncio.run(main())


def test_a_broken_picture_that_is_asked_about_is_an_error_and_the_session_lives(
    visiting: Visiting,
) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send({**BROKEN, "data": {**BROKEN["data"], "reply": 1}})
            error = await client.next("response.error")
            assert error["data"] == {"message": "the JPEG picture is broken", "code": "picture"}
            await client.next(".audio.done")
            await client.send(image(8, 8, reply=1))
            assert await client.said() == "I see a picture of 8 x 8 pixels."

    asyncio.run(main())


def test_a_broken_frame_of_a_camera_disturbs_nothing(visiting: Visiting) -> None:
    async def main() -> None:
        async with visiting(echo()) as client:
            await client.send(BROKEN)
            await client.type("Hello")
            assert await client.said() == "You wrote: Hello"
            assert "error" not in client.types()

    asyncio.run(main())


# ---- barge-in (3.2)


@pytest.mark.parametrize("piece", [480, 1536], ids=["20 ms pieces", "64 ms pieces"])
@pytest.mark.parametrize("level", [0.2, 1.0], ids=["-27 dBFS", "-13 dBFS"])
def test_the_voice_stops_within_200_ms_of_speech(
    visiting: Visiting, tone: Callable[[float], bytes], piece: int, level: float
) -> None:
    """Counted in the samples of both streams: the user's at its real pace, and the voice track's.

    A client that keeps 341 ms of sound back before it sends, as the JS SDK does, adds that.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with visiting(Noting(Reply(text="A story.", pcm=tone(30.0)))) as client:
            voice = VoiceTrack(client.mouthpiece)
            audible: list[float] = []

            async def listen() -> None:
                while True:
                    frame = await voice.recv()
                    due = loop.time()
                    if rms_dbfs(frame.to_ndarray().tobytes()) > -60.0:
                        audible.append(due)

            listening = asyncio.create_task(listen())
            await client.type("Tell me a story.")
            await client.said()
            await asyncio.sleep(1.0)
            assert len(audible) > 40
            samples = np.frombuffer(tone(1.0), dtype="<i2")
            speech = np.round(samples * level).astype("<i2").tobytes()
            began = loop.time()
            heard: list[float] = []

            async def started() -> None:
                await client.next("speech_started")
                heard.append(loop.time())

            waiting = asyncio.create_task(started())
            for at in range(0, len(speech), 2 * piece):
                # A piece leaves when its last sample was spoken.
                await asyncio.sleep(began + (at / 2 + piece) / 24_000 - loop.time())
                audio = base64.b64encode(speech[at : at + 2 * piece]).decode()
                await client.send(
                    {"type": "realtime.input_audio_buffer.append", "data": {"audio": audio}}
                )
            await waiting
            silent = audible[-1] + 0.02
            assert began < silent <= began + 0.2
            assert began < heard[0] <= began + 0.15
            # The client is told before the voice has stopped, not after.
            assert heard[0] <= silent
            listening.cancel()

    run_virtual(main())
