"""Show the human a picture and ask about it.

Usage: python examples/image_question.py WS_URL AVATAR PICTURE QUESTION
The licence is in NAVTALK_LICENSE.
Shortcomings: only OpenAI's provider looks at pictures; the emulator says that it received one.
"""

import asyncio
import os
import sys

from navtalk_asyncio import connect
from navtalk_proto import Endpoint, HumanTurn


async def main(url: str, avatar: str, picture: str, question: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    async with connect(endpoint, media=False) as session:
        await session.send_image(picture)  # kept in mind: no answer to it alone
        await session.send_text(question)
        async for turn in session.turns():
            if isinstance(turn, HumanTurn):
                print(f"human: {turn.text}")
                return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
