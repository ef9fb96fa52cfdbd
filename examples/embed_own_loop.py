"""The bare core on an event loop of your own: a selector, a timer, and two sans-IO protocols.

Usage: python examples/embed_own_loop.py WS_URL AVATAR  (licence in NAVTALK_LICENSE)
Shortcomings: ws:// only; sends block while the socket is full; one connection for each loop.
"""

import os
import selectors
import socket
import sys
from itertools import chain
from time import monotonic

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

from navtalk_proto import ClientConfig, Connection, Endpoint, Role, actions, events, intents


def run(endpoint: Endpoint) -> None:
    uri = parse_uri(endpoint.url())
    pipe, wire = socket.create_connection((uri.host, uri.port)), ClientProtocol(uri)
    wire.send_request(wire.connect())
    core = Connection(Role.CLIENT, ClientConfig(media=()), now=monotonic())
    selector = selectors.DefaultSelector()
    selector.register(pipe, selectors.EVENT_READ)
    while True:  # the loop: write, wait for the socket or the deadline, read
        for data in wire.data_to_send():
            pipe.sendall(data)
        deadline = core.next_timeout()
        if selector.select(deadline and max(0.0, deadline - monotonic())):
            if data := pipe.recv(65536):
                wire.receive_data(data)
            else:
                core.transport_closed(code=wire.close_code, reason="", now=monotonic())
        core.handle_timeout(now=monotonic())  # harmless when it is early
        for event in wire.events_received():
            if not isinstance(event, Frame):  # the response to our handshake
                core.transport_opened(now=monotonic())
            elif event.opcode is event.opcode.TEXT:
                core.receive_text(bytes(event.data), now=monotonic())
        for action in chain.from_iterable(iter(core.actions, [])):  # until there are none
            match action:
                case actions.SendText():
                    wire.send_text(action.text.encode())
                case actions.CloseTransport():
                    wire.send_close(action.code, action.reason)
                case actions.Emit(event=events.Ready()):
                    core.send(intents.SayText(text="Hello from my own loop!"), now=monotonic())
                case actions.Emit(event=events.ResponseGenerated(text=text)):
                    print(f"human: {text}")
                    core.send(intents.Close(), now=monotonic())
                case actions.Emit(event=events.Closed()):
                    return pipe.close()


if __name__ == "__main__":
    url, name, licence = *sys.argv[1:], os.environ["NAVTALK_LICENSE"]
    run(Endpoint(base_url=url, name=name, license=licence))
