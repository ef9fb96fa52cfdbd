"""A picture as the wire has it: a data URL (protocol.md 5.14)."""

from __future__ import annotations

from base64 import b64decode

from navtalk_proto.limits import Limits
from navtalk_proto.wire import codec
from navtalk_proto.wire.image import IMAGE_BYTES, IMAGE_QUALITY, IMAGE_SIDE, JPEG_PREFIX, jpeg_url
from navtalk_proto.wire.messages import InputImage


def test_a_data_url_as_stock_clients_write_it() -> None:
    url = jpeg_url(b"\xff\xd8\xff\xe0")
    assert url == "data:image/jpeg;base64,/9j/4A=="
    assert b64decode(url.removeprefix(JPEG_PREFIX)) == b"\xff\xd8\xff\xe0"


def test_the_largest_picture_fits_what_websocket_servers_take() -> None:
    text = codec.encode(InputImage(content=jpeg_url(bytes(IMAGE_BYTES)), reply=True))
    assert len(text) < 1024 * 1024 < Limits().client_message


def test_the_defaults_are_a_picture_of_use() -> None:
    assert IMAGE_QUALITY == 70
    assert 640 <= IMAGE_SIDE <= 2048
