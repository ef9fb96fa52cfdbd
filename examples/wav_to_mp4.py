"""A batch: each spoken question becomes a film of the answer, several at a time.

Usage: python examples/wav_to_mp4.py WS_URL AVATAR QUESTION.wav ...  (licence in NAVTALK_LICENSE)
Shortcomings: a question that fails is told and not tried again; the films lie beside the questions.
"""

import os
import sys
from pathlib import Path

import trio

from navtalk_proto import Endpoint, HumanTurn, NavTalkError
from navtalk_proto.media import recording_media
from navtalk_trio import connect

AT_A_TIME = 4


async def ask(endpoint: Endpoint, question: Path, limit: trio.CapacityLimiter) -> None:
    film = question.with_suffix(".mp4")
    try:
        # mp4 takes H.264 only, so the server is asked for that before the call begins.
        async with (
            limit,
            connect(endpoint, media=recording_media(film)) as session,
            session.record(film),
        ):
            await session.say_file(question)
            async for turn in session.turns():
                if isinstance(turn, HumanTurn):
                    break
        print(f"{film.name}: {turn.text}")
    except NavTalkError as error:
        print(f"{question.name}: {error}", file=sys.stderr)


async def main(url: str, avatar: str, *questions: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    limit = trio.CapacityLimiter(AT_A_TIME)
    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(ask, endpoint, Path(question), limit)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
