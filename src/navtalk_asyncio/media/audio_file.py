"""Audio files as the PCM of the WebSocket: 24,000 Hz, mono, signed 16 bits (protocol.md 5.12)."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import av
from av.error import FFmpegError

from navtalk_proto.errors import NavTalkError
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = ["AudioFileError", "iter_pcm"]

_MAX_FRAME_MS: Final = 10_000


class AudioFileError(NavTalkError):
    """A file is not audio that can be decoded. What was yielded before stays valid."""

    code = "audio-file"
    hint = "give a file that ffmpeg can read and that has an audio stream"


def iter_pcm(source: str | os.PathLike[str] | BinaryIO, *, frame_ms: int = 20) -> Generator[bytes]:
    """Decode the first audio stream of a file into frames of `frame_ms` milliseconds.

    `source` is a local path or a readable binary file (which the caller closes). Any container,
    codec, rate and channel layout that PyAV reads is resampled to 24,000 Hz mono PCM16,
    little-endian. Every frame has ``24 * frame_ms`` samples, the last one may be shorter. The file
    is decoded as frames are taken: memory does not grow with its length.

    Raises ValueError at the call for a `frame_ms` outside 1 to 10,000; OSError (a missing file) and
    AudioFileError from the iterator.
    """
    if not 1 <= frame_ms <= _MAX_FRAME_MS:
        raise ValueError(f"frame_ms is 1 to {_MAX_FRAME_MS}, not {frame_ms}")
    return _iter_pcm(source, SAMPLE_RATE * frame_ms // 1000 * SAMPLE_WIDTH)


def _iter_pcm(source: str | os.PathLike[str] | BinaryIO, size: int) -> Generator[bytes]:
    with ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            # Opened here and not by FFmpeg, to which a path may also be the URL of a network.
            file: BinaryIO = stack.enter_context(Path(source).open("rb"))
        else:
            file = source
        pending = bytearray()
        for pcm in _decode(file):
            pending += pcm
            while len(pending) >= size:
                yield bytes(pending[:size])
                del pending[:size]
        if pending:
            yield bytes(pending)


def _decode(file: BinaryIO) -> Iterator[bytes]:
    try:
        container = av.open(file, mode="r")
    except FFmpegError as error:
        raise AudioFileError(f"not a media file: {error.strerror}") from error
    with container:
        if not container.streams.audio:
            raise AudioFileError("the file has no audio stream")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        seconds = 0.0
        frames = container.decode(container.streams.audio[0])
        while True:
            try:
                frame = next(frames, None)
                # At the end None flushes what the resampler still holds.
                resampled = resampler.resample(frame)
            except FFmpegError as error:
                raise AudioFileError(
                    f"the audio is broken after {seconds:.1f} s: {error.strerror}"
                ) from error
            for part in resampled:
                seconds += part.samples / SAMPLE_RATE
                yield bytes(part.planes[0])[: part.samples * SAMPLE_WIDTH]
            if frame is None:
                return
