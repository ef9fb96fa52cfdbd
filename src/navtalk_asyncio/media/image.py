"""Pictures as the WebSocket takes them: a JPEG of bounded size, in a data URL (protocol.md 5.14).

Decoding and encoding take tens of milliseconds: adapters do it in a thread. Pillow does the work,
and not PyAV, because a file may come from anywhere: FFmpeg takes a text with addresses in it for a
playlist, and decodes a picture before it can be asked how large it is.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError as _missing:
    if _missing.name != "PIL":
        raise
    raise ImportError("pictures need Pillow: pip install 'navtalk[image]'", name="PIL") from None

from navtalk_proto.errors import NavTalkError
from navtalk_proto.wire.image import IMAGE_BYTES, IMAGE_QUALITY, IMAGE_SIDE, jpeg_url

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "ImageError",
    "ImageSource",
    "ImageTooLargeError",
    "encode_jpeg",
    "image_url",
]

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""The largest file that is read. The picture of a 50-megapixel camera has 20 MB."""

MAX_PIXELS: Final = 64_000_000
"""The largest picture that is decoded, which takes 3 or 4 bytes a pixel. A file of some kilobytes
can hold one a thousand times as large."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is looked for in a file. Not every format of Pillow: for some it runs other programs."""

_LOWEST_QUALITY: Final = 30
_QUALITY_STEP: Final = 20
_SCALE_STEP: Final = 0.7
"""Half the pixels."""
_SMALLEST_SIDE: Final = 64

ImageSource: TypeAlias = Union[str, "os.PathLike[str]", bytes, "av.VideoFrame", "NDArray[np.uint8]"]
"""What can be sent: a path or the bytes of a JPEG, PNG, WebP, GIF (its first picture), BMP, TIFF,
PPM or AVIF file, a PyAV frame, or a numpy array of height x width x 3 bytes, RGB."""


class ImageError(NavTalkError):
    """Something is not a picture that can be decoded."""

    code = "image"
    hint = "give a JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF picture"


class ImageTooLargeError(ImageError):
    """A picture is too large to be decoded, or cannot be made small enough to be sent."""

    code = "image-too-large"
    hint = "make the picture smaller before it is sent"


def image_url(
    image: ImageSource, *, quality: int = IMAGE_QUALITY, max_side: int = IMAGE_SIDE
) -> str:
    """The data URL of :func:`encode_jpeg`: the content of InputImage."""
    return jpeg_url(encode_jpeg(image, quality=quality, max_side=max_side))


def encode_jpeg(
    image: ImageSource,
    *,
    quality: int = IMAGE_QUALITY,
    max_side: int = IMAGE_SIDE,
    max_bytes: int = IMAGE_BYTES,
) -> bytes:
    """A picture as a JPEG of at most `max_bytes` bytes and `max_side` pixels on the longer side.

    A JPEG file that is that already comes back byte for byte, with its metadata. Anything else is
    turned as its metadata says, put on white where it is transparent, scaled down, and encoded at
    `quality` (1 to 95); as long as that has too many bytes the quality is lowered to 30 at least,
    and then the picture is made smaller. Called in a thread.

    Raises TypeError and ValueError for arguments that are none of this; OSError where a file cannot
    be read; ImageError for what is no picture or a broken one; ImageTooLargeError for one of more
    than MAX_FILE_BYTES or MAX_PIXELS, before it is decoded, and where nothing fits `max_bytes`.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"quality is 1 to 95, not {quality}")
    if max_side < 1:
        raise ValueError(f"max_side is a positive number of pixels, not {max_side}")
    if isinstance(image, str | os.PathLike):
        with Path(image).open("rb") as file:
            # One byte more tells that there is more.
            image = file.read(MAX_FILE_BYTES + 1)
    if isinstance(image, bytes):
        return _from_file(image, quality, max_side, max_bytes)
    return _fit(_from_pixels(image, max_side), quality, max_bytes)


def _from_file(data: bytes, quality: int, max_side: int, max_bytes: int) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise ImageTooLargeError(f"the file has more than {MAX_FILE_BYTES} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            _check_pixels(file.width, file.height)
            is_jpeg = file.format in ("JPEG", "MPO")
            if is_jpeg and len(data) <= max_bytes and max(file.size) <= max_side:
                file.load()  # A broken one must fail here, and not at the server.
                return data
            # Decodes a large JPEG at a half, a quarter or an eighth of its size.
            file.draft("RGB", (max_side, max_side))
            file.load()
            picture = _scaled(_opaque(ImageOps.exif_transpose(file)), max_side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"more than {MAX_PIXELS} pixels") from error
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a picture that can be decoded: of no known format") from error
    except Exception as error:  # A broken file makes Pillow raise almost anything.
        raise ImageError(f"not a picture that can be decoded: {error}") from error
    return _fit(picture, quality, max_bytes)


def _from_pixels(image: Any, max_side: int) -> Image.Image:
    """A PyAV frame or an array, told by what they have: neither package need be installed."""
    if hasattr(image, "to_image"):
        _check_pixels(image.width, image.height)
        frame: Image.Image = image.to_image()
        return _scaled(frame, max_side)
    shape = getattr(image, "shape", None)
    if shape is None:
        raise TypeError(f"{type(image).__name__} is not a path, bytes, a frame or an array")
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or str(image.dtype) != "uint8":
        raise ValueError(
            f"an array of height x width x 3 bytes is wanted, not {image.dtype} {tuple(shape)}"
        )
    _check_pixels(shape[1], shape[0])
    return _scaled(Image.frombytes("RGB", (shape[1], shape[0]), image.tobytes()), max_side)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageTooLargeError(f"{width}x{height} is more than {MAX_PIXELS} pixels")


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _scaled(picture: Image.Image, max_side: int) -> Image.Image:
    longer = max(picture.size)
    if longer <= max_side:
        return picture
    width, height = (max(1, round(side * max_side / longer)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _fit(picture: Image.Image, quality: int, max_bytes: int) -> bytes:
    while True:
        at = quality
        while True:
            jpeg = _jpeg(picture, at)
            if len(jpeg) <= max_bytes:
                return jpeg
            if at <= _LOWEST_QUALITY:
                break
            at = max(_LOWEST_QUALITY, at - _QUALITY_STEP)
        side = round(max(picture.size) * _SCALE_STEP)
        if side < _SMALLEST_SIDE:
            raise ImageTooLargeError(f"no readable picture fits {max_bytes} bytes")
        picture = _scaled(picture, side)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()
