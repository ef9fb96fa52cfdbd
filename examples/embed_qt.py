"""The bare core in a Qt application: Qt's socket, Qt's timer, the answer in a label.

Usage: python examples/embed_qt.py WS_URL AVATAR  (licence in NAVTALK_LICENSE; needs PySide6)
Shortcomings: ws:// only (QSslSocket is the same for wss://); ends after the first answer.
"""

import os
import sys
from itertools import chain
from time import monotonic

from PySide6 import QtCore, QtNetwork, QtWidgets
from websockets import client, frames, uri

from navtalk_proto import ClientConfig, Connection, Endpoint, Role, actions, events, intents


class Captions(QtWidgets.QLabel):
    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.core = Connection(Role.CLIENT, ClientConfig(media=()), now=monotonic())
        self.wire = client.ClientProtocol(uri.parse_uri(endpoint.url()))
        self.alarm = QtCore.QTimer(self, singleShot=True, timeout=self.act)
        self.pipe = QtNetwork.QTcpSocket(self, connected=self.act, readyRead=self.act)
        self.pipe.disconnected.connect(application.quit)
        self.wire.send_request(self.wire.connect())
        self.pipe.connectToHost(self.wire.uri.host, self.wire.uri.port)

    def act(self) -> None:
        self.wire.receive_data(self.pipe.readAll().data())
        for event in self.wire.events_received():
            if not isinstance(event, frames.Frame):  # the response to our handshake
                self.core.transport_opened(now=monotonic())
            elif event.opcode is frames.Opcode.TEXT:
                self.core.receive_text(bytes(event.data), now=monotonic())
        self.core.handle_timeout(now=monotonic())  # harmless when it is early
        for action in chain.from_iterable(iter(self.core.actions, [])):  # until there are none
            match action:
                case actions.SendText():
                    self.wire.send_text(action.text.encode())
                case actions.CloseTransport(code=code):
                    self.wire.send_close(code)
                case actions.Emit(event=events.Ready()):
                    self.core.send(intents.SayText(text="Hello from Qt!"), now=monotonic())
                case actions.Emit(event=events.ResponseGenerated() as answer):
                    self.setText(answer.text)
                    self.core.send(intents.Close(), now=monotonic())
        self.pipe.write(b"".join(self.wire.data_to_send()))
        if due := self.core.next_timeout():
            self.alarm.start(max(0, round((due - monotonic()) * 1000)))


if __name__ == "__main__":
    application = QtWidgets.QApplication(sys.argv[:1])
    url, name = sys.argv[1:]
    label = Captions(Endpoint(base_url=url, name=name, license=os.environ["NAVTALK_LICENSE"]))
    label.show()
    application.exec()
    print(f"label: {label.text()}")
