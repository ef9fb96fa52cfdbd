"""Pictures of any kind become JPEGs of bounded size, or an error that says why not."""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from navtalk_asyncio.media import image as image_module
from navtalk_asyncio.media.image import (
    MAX_FILE_BYTES,
    ImageError,
    ImageTooLargeError,
    encode_jpeg,
    image_url,
)
from navtalk_proto.errors import NavTalkError
from navtalk_proto.wire.image import IMAGE_BYTES, IMAGE_SIDE, JPEG_PREFIX

RED, GREEN, WHITE = (220, 20, 20), (20, 200, 20), (255, 255, 255)


def halves(width: int, height: int) -> Image.Image:
    """The left half red, the right half green."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height))
    return picture


def file(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def decoded(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    picture.load()
    return picture


def assert_color(picture: Image.Image, at: tuple[float, float], color: Any) -> None:
    found = picture.getpixel((int(at[0] * picture.width), int(at[1] * picture.height)))
    assert isinstance(found, tuple)
    assert all(abs(one - other) < 25 for one, other in zip(found, color, strict=True)), found


def noise(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


# ---- what it takes


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("as_path", [False, True])
def test_a_picture_file(format: str, as_path: bool, tmp_path: Path) -> None:
    data = file(halves(1600, 800), format)
    path = tmp_path / "a.picture"
    path.write_bytes(data)
    picture = decoded(encode_jpeg(path if as_path else data, max_side=400))
    assert picture.size == (400, 200)
    assert_color(picture, (0.25, 0.5), RED)
    assert_color(picture, (0.75, 0.5), GREEN)


def test_a_path_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(file(halves(40, 20), "PNG"))
    assert decoded(encode_jpeg(str(tmp_path / "a.png"))).size == (40, 20)


@pytest.mark.parametrize("format", ["yuv420p", "rgb24", "nv12"])
def test_a_frame_of_pyav(format: str) -> None:
    frame = av.VideoFrame.from_ndarray(np.asarray(halves(320, 240)), format="rgb24")
    picture = decoded(encode_jpeg(frame.reformat(format=format), max_side=160))
    assert picture.size == (160, 120)
    assert_color(picture, (0.25, 0.5), RED)
    assert_color(picture, (0.75, 0.5), GREEN)


def test_an_array() -> None:
    array = np.asarray(halves(320, 240))
    for given in (array, np.ascontiguousarray(array[:, ::-1])[:, ::-1]):
        picture = decoded(encode_jpeg(given))
        assert picture.size == (320, 240)
        assert_color(picture, (0.25, 0.5), RED)


def test_a_data_url() -> None:
    url = image_url(halves_array := np.asarray(halves(64, 64)), quality=50, max_side=32)
    assert url.startswith(JPEG_PREFIX)
    assert b64decode(url.removeprefix(JPEG_PREFIX)) == encode_jpeg(
        halves_array, quality=50, max_side=32
    )


# ---- what it makes of it


def test_a_jpeg_that_fits_is_not_touched(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file(halves(IMAGE_SIDE, 700), "JPEG", quality=93, exif=exif)
    assert encode_jpeg(data) == data
    (tmp_path / "a.jpg").write_bytes(data)
    assert encode_jpeg(tmp_path / "a.jpg", quality=10) == data


def test_one_that_does_not_fit_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held upright: turn it by 90 degrees to the right.
    picture = decoded(encode_jpeg(file(halves(400, 200), "JPEG", exif=exif), max_side=100))
    assert picture.size == (50, 100)
    assert_color(picture, (0.5, 0.25), RED)
    assert_color(picture, (0.5, 0.75), GREEN)


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    picture.paste((*RED, 255), (0, 0, 50, 100))
    for transparent in (file(picture, "PNG"), file(picture.convert("P"), "PNG", transparency=0)):
        assert_color(decoded(encode_jpeg(transparent)), (0.75, 0.5), WHITE)
    assert_color(decoded(encode_jpeg(file(picture, "PNG"))), (0.25, 0.5), RED)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16"])
def test_other_kinds_of_pixels(mode: str) -> None:
    picture = Image.new("L", (64, 48), 255).convert("I" if mode == "I;16" else mode)
    format = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    assert_color(decoded(encode_jpeg(file(picture, format))), (0.5, 0.5), WHITE)


def test_a_small_picture_is_not_made_larger() -> None:
    assert decoded(encode_jpeg(np.asarray(halves(10, 7)))).size == (10, 7)


def test_a_thin_picture_keeps_a_pixel() -> None:
    assert decoded(encode_jpeg(np.asarray(halves(5000, 2)), max_side=100)).size == (100, 1)


def test_the_quality_asked_for() -> None:
    array = noise(300, 200)
    sizes = [len(encode_jpeg(array, quality=quality)) for quality in (95, 70, 30)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_the_size_is_bounded_first_by_quality() -> None:
    array = noise(300, 200)
    limit = len(encode_jpeg(array, quality=30)) + 10
    jpeg = encode_jpeg(array, quality=90, max_bytes=limit)
    assert len(jpeg) <= limit
    assert decoded(jpeg).size == (300, 200)


def test_and_then_by_pixels() -> None:
    array = noise(1200, 800)
    limit = len(encode_jpeg(array, quality=30)) // 3
    jpeg = encode_jpeg(array, quality=90, max_bytes=limit)
    assert len(jpeg) <= limit
    width, height = decoded(jpeg).size
    assert 64 <= height < 800
    assert width / height == pytest.approx(1.5, abs=0.02)


def test_the_default_bound_holds_for_the_worst_picture() -> None:
    assert len(encode_jpeg(noise(2400, 1800), quality=95, max_side=4000)) <= IMAGE_BYTES


def test_a_jpeg_with_too_many_bytes_is_encoded_anew() -> None:
    data = file(Image.fromarray(noise(400, 300)), "JPEG", quality=95)
    jpeg = encode_jpeg(data, max_bytes=len(data) - 1)
    assert len(jpeg) < len(data)
    assert decoded(jpeg).size == (400, 300)


# ---- what it refuses


def bomb(width: int, height: int) -> bytes:
    """A PNG of 2 KB that says that it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)


@pytest.mark.parametrize("side", [8001, 10_000, 20_000, 60_000])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    # Pillow itself warns from 89 million pixels on, and refuses from 179 million on.
    with pytest.raises(ImageTooLargeError, match="64000000 pixels"):
        encode_jpeg(bomb(side, side))


def test_a_frame_or_an_array_of_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 100)
    for given in (np.zeros((11, 10, 3), np.uint8), av.VideoFrame(16, 16, "rgb24")):
        with pytest.raises(ImageTooLargeError, match="more than 100 pixels"):
            encode_jpeg(given)


def test_a_file_of_too_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as large:
        large.truncate(MAX_FILE_BYTES + 1)  # A hole: it takes no room on the disk.
    with pytest.raises(ImageTooLargeError, match="bytes"):
        encode_jpeg(path)


def test_what_cannot_be_made_small_enough() -> None:
    with pytest.raises(ImageTooLargeError, match="fits 300 bytes"):
        encode_jpeg(noise(640, 480), max_bytes=300)


JPEG = file(Image.fromarray(noise(64, 64)), "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        JPEG[: len(JPEG) // 2],
        JPEG[:20],
        file(halves(64, 64), "PNG")[:60],
        b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
    ids=["empty", "text", "half a jpeg", "a header", "half a png", "a playlist", "postscript"],
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        encode_jpeg(data)
    assert type(caught.value) is ImageError
    assert isinstance(caught.value, NavTalkError)
    assert caught.value.hint
    assert "object at" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        encode_jpeg(tmp_path / "missing.jpg")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_of_another_shape(array: Any) -> None:
    with pytest.raises(ValueError, match="height x width x 3"):
        encode_jpeg(array)


@pytest.mark.parametrize("given", [None, 5, object(), ["a.jpg"]])
def test_something_else(given: Any) -> None:
    with pytest.raises(TypeError, match="is not a path, bytes, a frame or an array"):
        encode_jpeg(given)


@pytest.mark.parametrize(
    "options", [{"quality": 0}, {"quality": 96}, {"max_side": 0}, {"max_side": -1}]
)
def test_settings_that_mean_nothing(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        encode_jpeg(JPEG, **options)  # type: ignore[arg-type]


def test_codes_are_stable() -> None:
    assert (ImageError.code, ImageTooLargeError.code) == ("image", "image-too-large")
    assert issubclass(ImageTooLargeError, ImageError)
