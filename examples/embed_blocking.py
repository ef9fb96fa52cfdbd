"""The bare core over a blocking WebSocket: no event loop, no threads of ours, no media.

Usage: python examples/embed_blocking.py WS_URL AVATAR  (licence in NAVTALK_LICENSE)
Shortcomings: deadlines are late by a message; websockets logs the licence at DEBUG.
"""

import os
import sys
from time import monotonic

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from navtalk_proto import ClientConfig, Connection, Endpoint, Role, actions, events
from navtalk_proto.intents import Close, SayText


def main(url: str, avatar: str) -> bool:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    core = Connection(Role.CLIENT, ClientConfig(media=()), now=monotonic())
    with connect(endpoint.url(), compression=None, proxy=None) as socket:
        core.transport_opened(now=monotonic())
        while True:
            pending = core.actions()
            for action in pending:
                match action:
                    case actions.SendText():
                        socket.send(action.text)
                    case actions.CloseTransport():
                        socket.close(action.code, action.reason)
                    case actions.Emit(event=events.Closed(cause=cause)):
                        return cause is events.CloseCause.LOCAL
                    case actions.Emit():
                        react(core, action.event)
                        pending += core.actions()  # what the reaction brought about
            deadline = core.next_timeout()
            try:
                got = socket.recv(timeout=deadline and max(0.0, deadline - monotonic()))
            except TimeoutError:
                core.handle_timeout(now=monotonic())
            except ConnectionClosed as end:
                code, reason = (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, "")
                core.transport_closed(code=code, reason=reason, now=monotonic())
            else:
                core.receive_text(got, now=monotonic())  # the wire has no binary messages


def react(core: Connection, event: events.Event) -> None:
    match event:
        case events.Ready():
            core.send(SayText(text="Hello from a blocking loop!"), now=monotonic())
        case events.ResponseGenerated(text=text):
            print(f"human: {text}")
            core.send(Close(), now=monotonic())
        case events.Refused() | events.ConnectFailed() | events.TimedOut():
            print(event, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
