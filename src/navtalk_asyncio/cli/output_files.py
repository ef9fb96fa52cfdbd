"""What is wrong with the files that were named, said before anything is connected or paid for."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Final

from PIL.Image import registered_extensions

from navtalk_asyncio.media.audio_file import AudioFileError, iter_pcm
from navtalk_asyncio.media.image import ImageError, encode_jpeg

__all__ = ["RECORDINGS", "problem_with", "unwritable"]

RECORDINGS: Final = (".mp4", ".mkv", ".webm")
"""What an answer is written as; the recorder takes no others."""


def problem_with(
    *,
    question: Path | None = None,
    image: Path | None = None,
    output: Path,
    still: Path | None = None,
) -> str | None:
    """What is wrong with a sound and a picture to read, and a recording and a picture to write.

    None if they will do. What is read is tried: a session that is paid for is not opened for it.
    """
    for path in (question, image):
        if path is not None and not path.is_file():
            return f"there is no file {path}"
    try:
        if question is not None:
            with closing(iter_pcm(question)) as frames:
                next(frames, None)
        if image is not None:
            encode_jpeg(image)
    except (AudioFileError, ImageError) as error:
        return f"{question if isinstance(error, AudioFileError) else image}: {error}"
    except OSError as error:
        return str(error)
    if output.suffix.lower() not in RECORDINGS:
        return f"{output} is not named as one of {', '.join(RECORDINGS)}"
    if still is not None and still.suffix.lower() not in registered_extensions():
        return f"{still} is not named as a picture, for example .png"
    for path in (output, still):
        if path is not None and (problem := unwritable(path)):
            return problem
    return None


def unwritable(path: Path) -> str | None:
    """Why a file cannot be written. Nothing is created: the disk may still say no later."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.is_dir():
        return f"{path} is a folder"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path} may not be written"
    return None
