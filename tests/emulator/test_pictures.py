"""Pictures of clients, whole and broken."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from navtalk_asyncio.emulator.pictures import Picture, PictureError, look


def encoded(format: str, width: int = 64, height: int = 48, **options: Any) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format, **options)
    return file.getvalue()


def url(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WebP", {})],
)
def test_a_picture_is_what_its_file_says(format: str, options: dict[str, Any]) -> None:
    data = encoded(format, **options)
    # Whatever the URL calls it.
    expected = Picture(format=format, width=64, height=48, data=data)
    assert look(url(data)) == look(url(data, "image/x")) == look(url(data, "")) == expected
    assert repr(expected).endswith(f"data=<{len(data)} bytes>)")


def test_broken_lines_and_one_pixel() -> None:
    text = base64.encodebytes(encoded("JPEG", 1, 1)).decode()
    assert "\n" in text
    picture = look(f"DATA:image/jpeg;charset=x;BASE64,{text}")
    assert (picture.width, picture.height) == (1, 1)


def huge_png(width: int, height: int) -> bytes:
    """A header that claims so many pixels, and the beginning of none."""
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no data URL in base64"),
        ("https://example.org/a.jpg", "no data URL in base64"),
        ("data:image/jpeg,abc", "no data URL in base64"),
        ("data:image/jpeg;base64,***", "is not base64"),
        ("data:image/jpeg;base64,ä", "is not base64"),
        ("data:image/jpeg;base64,", "not a JPEG, PNG or WebP"),
        (url(b"GIF89a"), "not a JPEG, PNG or WebP"),
        (url(encoded("JPEG")[:300]), "the JPEG picture is broken"),
        (url(encoded("JPEG")[:3]), "the JPEG picture is broken"),
        (url(encoded("PNG")[:-40]), "the PNG picture is broken"),
        (url(encoded("WebP")[:-40]), "the WebP picture is broken"),
        (url(huge_png(5001, 5000)), "5001 x 5000 pixels, 25000000 can be"),
        (url(huge_png(2**31 - 1, 2**31 - 1)), "pixels, 25000000 can be"),
        (url(huge_png(5000, 5000)), "the PNG picture is broken"),
    ],
    ids=map(str, range(14)),
)
def test_what_cannot_be_looked_at(content: str, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        look(content)


@given(
    format=st.sampled_from(["JPEG", "PNG", "WebP"]),
    at=st.integers(0, 400),
    junk=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_file_is_a_picture_or_an_error(format: str, at: int, junk: bytes) -> None:
    data = bytearray(encoded(format, 16, 16))
    data[at : at + len(junk)] = junk
    try:
        picture = look(url(bytes(data)))
    except PictureError:
        return
    assert picture.width * picture.height <= 25_000_000
