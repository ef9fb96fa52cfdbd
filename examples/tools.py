"""The human answers a typed request by calling Python functions, on asyncio or trio.

Usage: python examples/tools.py WS_URL AVATAR asyncio|trio  (licence in NAVTALK_LICENSE)
Shortcomings: the opening hours are made up; says nothing when the human calls no function.
"""

import importlib
import os
import sys
from datetime import date
from typing import Annotated, Any, Literal

import anyio

from navtalk_proto import Endpoint, tool
from navtalk_proto.events import FunctionCall, ResponseGenerated

Day = Literal["Saturday", "Sunday", "Monday"]


async def opening_hours(day: Annotated[Day, "The day that is asked for."]) -> dict[str, str]:
    """When the museum opens and closes on a day."""
    await anyio.sleep(0.1)  # as a look-up over the network would
    return {"Saturday": {"from": "10:00", "to": "18:00"}, "Sunday": {"from": "12:00"}}.get(day, {})


@tool(timeout=5)
def todays_date() -> str:
    """Today's date."""
    return date.today().isoformat()  # a plain function: runs in a thread


async def visit(url: str, avatar: str, adapter: Any) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    tools = [opening_hours, todays_date]
    async with adapter.connect(endpoint, media=False, tools=tools) as session:
        await session.send_text("What are your opening hours on Saturday?")
        called = False
        async for event in session.events():
            match event:
                case FunctionCall():
                    print(f"calls: {event.name}({event.arguments})")
                    called = True
                case ResponseGenerated() if called:
                    print(f"human: {event.text}")
                    return


def main(url: str, avatar: str, loop: str = "asyncio") -> None:
    adapter = importlib.import_module(f"navtalk_{loop}")
    anyio.run(visit, url, avatar, adapter, backend=loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
