"""Pictures that a client sends: what they are, found out by decoding them (protocol.md 5.14)."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Final

from attrs import field, frozen
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from navtalk_proto.errors import NavTalkError

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "look"]

MAX_PIXELS: Final = 25_000_000
"""Pixels of a picture that is decoded: a telephone's camera has 12 million, and 25 million are
100 MB while they are looked at."""

_Opener = Callable[[io.BytesIO], ImageFile]

_FORMATS: Final[tuple[tuple[str, int, bytes, _Opener], ...]] = (
    ("JPEG", 0, b"\xff\xd8\xff", JpegImageFile),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    ("WebP", 8, b"WEBP", WebPImageFile),
)
"""Name, where its mark stands, the mark, what reads it. By name and not with Image.open: that
tries forty formats, and warns of large pictures where we refuse them."""


class PictureError(NavTalkError):
    """A picture cannot be looked at; the session lives, and the next one may be fine."""

    code = "picture"
    hint = "send a JPEG, PNG or WebP as data:image/jpeg;base64,..."


@frozen(kw_only=True)
class Picture:
    """A picture that was decoded whole. `data` is the file as it was sent."""

    format: str
    """"JPEG", "PNG" or "WebP"."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")


def look(content: str) -> Picture:
    """Decode a data URL's picture to see what it is. Takes up to a second: call it in a thread.

    The type that the URL names is not looked at, the file's own mark is. Raises PictureError for
    anything but a data URL in base64 of a whole JPEG, PNG or WebP of at most MAX_PIXELS.
    """
    head, comma, body = content.partition(",")
    if not (comma and head[:5].lower() == "data:" and head.lower().endswith(";base64")):
        raise PictureError("the picture is no data URL in base64")
    try:
        # Android's encoder breaks lines unless it is told not to.
        data = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError("the picture is not base64") from error
    for name, at, mark, opener in _FORMATS:
        if data[at : at + len(mark)] == mark:
            return _decoded(data, name, opener)
    raise PictureError("the picture is not a JPEG, PNG or WebP")


def _decoded(data: bytes, name: str, opener: _Opener) -> Picture:
    try:
        with opener(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                # A JPEG is decoded at an eighth of its size: that reads all of it and costs little.
                image.draft("L", (max(width // 8, 1), max(height // 8, 1)))
                image.load()
    except Exception as error:  # A decoder meets bytes from anywhere: what it raises is a finding.
        raise PictureError(f"the {name} picture is broken") from error
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"the picture has {width} x {height} pixels, {MAX_PIXELS} can be looked at"
        )
    return Picture(format=name, width=width, height=height, data=data)
