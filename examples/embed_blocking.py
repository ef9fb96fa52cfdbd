"""The bare core over a blocking WebSocket: no event loop, no threads of ours, no media.

Usage: python examples/embed_blocking.py WS_URL AVATAR  (licence in NAVTALK_LICENSE)
Shortcoming: a deadline of the core may fire as late as the message that is being read.
"""

import os
import sys
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from navtalk_proto import ClientConfig, Connection, Endpoint, Role, actions, events, messages
from navtalk_proto.intents import Close, SayText


def main(url: str, avatar: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    core = Connection(Role.CLIENT, ClientConfig(media=()), now=time.monotonic())
    with connect(endpoint.url(), compression=None) as socket:
        core.transport_opened(now=time.monotonic())
        while True:
            pending = core.actions()
            for action in pending:
                match action:
                    case actions.SendText():
                        socket.send(action.text)
                    case actions.CloseTransport():
                        socket.close(action.code, action.reason)
                    case actions.Emit(event=events.Closed()):
                        return
                    case actions.Emit():
                        react(core, action.event)
                        pending += core.actions()  # what the reaction brought about
            deadline = core.next_timeout()
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                message = socket.recv(timeout=wait)
            except TimeoutError:
                core.handle_timeout(now=time.monotonic())
            except ConnectionClosed as end:
                code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, "")
                core.transport_closed(code=code, reason=reason, now=time.monotonic())
            else:
                core.receive_text(message, now=time.monotonic())


def react(core: Connection, event: events.Event) -> None:
    match event:
        case events.Ready():
            core.send(SayText(text="Hello from a blocking loop!"), now=time.monotonic())
        case events.MessageReceived(message=messages.TranscriptDone(content=text)):
            print(f"human: {text}")
            core.send(Close(), now=time.monotonic())


if __name__ == "__main__":
    main(*sys.argv[1:])
