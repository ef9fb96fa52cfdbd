"""A browser page talks to the human through your web server: the licence never leaves it.

Usage: python examples/fastapi_bridge.py WS_URL AVATAR PORT  (licence in NAVTALK_LICENSE)
Shortcomings: pictures go as single JPEGs and there is no sound; anybody may open the page.
"""

import asyncio
import io
import os
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse

from navtalk_asyncio import ClientSession, connect
from navtalk_proto import Endpoint

PAGE = """<!doctype html><meta charset="utf-8"><title>navtalk</title>
<img id="face" width="512"><form id="form"><input id="text" autofocus></form><ul id="said"></ul>
<script>
const socket = new WebSocket(location.href.replace(/^http/, "ws") + "session");
socket.onmessage = ({data}) => {
  if (typeof data !== "string") face.src = URL.createObjectURL(data);
  else said.appendChild(document.createElement("li")).textContent = data;
};
face.onload = () => URL.revokeObjectURL(face.src);
form.onsubmit = (event) => { event.preventDefault(); socket.send(text.value); form.reset(); };
</script>"""
app = FastAPI()
app.get("/")(lambda: HTMLResponse(PAGE))


async def show(session: ClientSession, browser: WebSocket) -> None:
    async for picture in session.video:  # the newest one: a slow browser sees fewer
        picture.to_image().save(jpeg := io.BytesIO(), "jpeg")
        await browser.send_bytes(jpeg.getvalue())


async def tell(session: ClientSession, browser: WebSocket) -> None:
    async for turn in session.turns():
        await browser.send_text(f"{type(turn).__name__}: {turn.text}")


@app.websocket("/session")
async def bridge(browser: WebSocket) -> None:
    await browser.accept()
    async with connect(app.state.endpoint) as session, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work(session, browser)) for work in (show, tell)]
        async for text in browser.iter_text():
            await session.send_text(text)
        for task in running:  # the page was closed
            task.cancel()


if __name__ == "__main__":
    url, avatar = sys.argv[1:3]
    licence = os.environ["NAVTALK_LICENSE"]
    app.state.endpoint = Endpoint(base_url=url, name=avatar, license=licence)
    uvicorn.run(app, port=int(sys.argv[3]), log_level="warning")
