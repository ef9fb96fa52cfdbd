"""The picture format of the WebSocket, and how big a picture should be (protocol.md 5.14)."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

__all__ = ["IMAGE_BYTES", "IMAGE_QUALITY", "IMAGE_SIDE", "JPEG_PREFIX", "jpeg_url"]

JPEG_PREFIX: Final = "data:image/jpeg;base64,"
"""What stock clients begin a picture with."""

IMAGE_BYTES: Final = 512 * 1024
"""The largest JPEG that is sent: 0.7 MB of base64. Many WebSocket servers take 1 MiB at a time, and
while a picture is being sent no audio is."""

IMAGE_SIDE: Final = 1280
"""The longer side of a picture, in pixels: text on a held-up page can be read, and models that look
at pictures make them smaller than this."""

IMAGE_QUALITY: Final = 70
"""JPEG quality of the stock clients."""


def jpeg_url(jpeg: bytes) -> str:
    """The data URL (RFC 2397) of a JPEG, the content of InputImage."""
    return JPEG_PREFIX + b64encode(jpeg).decode("ascii")
