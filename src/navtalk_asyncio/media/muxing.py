"""Containers: which codec fits which, and encoded packets written into one with FFmpeg's muxers.

Nothing is decoded or encoded here (the one picture that FFmpeg's H.264 prober looks at to learn the
size is the exception). What is on the disk can be played at any moment, also when the process is
killed: mp4 is fragmented, Matroska and WebM go on in clusters, and each fragment or cluster is of
:data:`FLUSH_SECONDS` at most and is written out when it is whole.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, Protocol

import av
from attrs import define, frozen

from navtalk_asyncio.media.parameter_sets import has_parameter_sets

__all__ = ["CONTAINERS", "FLUSH_SECONDS", "Container", "PacketFile", "Writable"]

FLUSH_SECONDS: Final = 0.5
"""What a killed process loses at most, and half a second of interleaving; and how long after its
header a file can be played."""

_MICROSECONDS: Final = 1_000_000

_MOST_TICKS: Final = 2**31 - 1
"""Between two packets of a track: what mp4 has room for; 6.6 hours of a picture, 12.4 of sound."""


@frozen(kw_only=True)
class Container:
    """A file format, and what of WebRTC's codecs it holds."""

    format: str
    """FFmpeg's name of the muxer."""
    codecs: tuple[str, ...]
    """As the rtpmap spells them."""
    options: Mapping[str, str]
    needs_durations: bool = False
    """A packet's time is the sum of the durations before it, and not written beside it."""


CONTAINERS: Final[Mapping[str, Container]] = {
    ".mp4": Container(
        format="mp4",
        codecs=("H264", "opus"),
        options={
            # The header goes out with the first fragment: only then is known where tracks begin.
            "movflags": "+frag_keyframe+delay_moov+default_base_moof",
            "frag_duration": str(round(FLUSH_SECONDS * _MICROSECONDS)),
            "video_track_timescale": "90000",
        },
        needs_durations=True,
    ),
    ".mkv": Container(
        format="matroska",
        codecs=("VP8", "H264", "opus"),
        options={"cluster_time_limit": str(round(FLUSH_SECONDS * 1000))},
    ),
    ".webm": Container(
        format="webm",
        codecs=("VP8", "opus"),
        options={"cluster_time_limit": str(round(FLUSH_SECONDS * 1000))},
    ),
}
"""By suffix. Opus in mp4 is "Encapsulation of Opus in ISO BMFF"; VP8 has no place there that
players know, and WebM is Matroska without H.264."""


class Writable(Protocol):
    """What is written to as it comes, and not sought in."""

    def write(self, data: bytes, /) -> int:
        """Take all of it; returns how many bytes that were."""
        ...


@define
class _Stream:
    stream: Any
    time_base: Fraction
    last: int = -1
    """The newest packet's time, in units of time_base."""
    held: Any = None
    """The newest packet, which waits for the one that ends it."""

    @property
    def least(self) -> int:
        """A millisecond, which is Matroska's resolution."""
        return self.time_base.denominator // 1000


class PacketFile:
    """A media file. First :meth:`add` each stream, then :meth:`write` packets of them.

    In mp4 a packet's time is the sum of the durations before it, at the least from one fragment to
    the next. FFmpeg moves a packet that begins before the one before was said to end, and aborts
    the process when that happens where it ends a fragment; and how long a picture lasts is known
    when the next one comes. So there the newest packet of each stream is held back until then.

    A stream that pauses does not hold the others back for more than half a second, except VP8: for
    its next picture FFmpeg waits without a limit, with the sound in memory.

    Each method raises what FFmpeg raises: av.FFmpegError, which is also an OSError for the disk's
    errors. :meth:`close` is to be called in any case.
    """

    def __init__(self, path: str | Writable, container: Container) -> None:
        options = {
            **container.options,
            "flush_packets": "1",
            # A track that pauses must not hold the other back in memory for 10 s.
            "max_interleave_delta": str(_MICROSECONDS // 2),
        }
        self._output: av.container.OutputContainer = av.open(
            path, "w", format=container.format, options=options
        )
        self._container = container
        self._streams: dict[str, _Stream] = {}

    def add(self, name: str, codec: str, first: bytes, *, title: str | None = None) -> None:
        """A stream, for packets of a codec. `first` is a keyframe of it; of sound, any packet.

        Raises ValueError for a VP8 keyframe that is none, and for an H.264 keyframe without
        parameter sets.
        """
        stream = _add_stream(self._output, codec, first)
        if title is not None:
            stream.metadata["title"] = title
        rate = 48_000 if codec == "opus" else 90_000
        self._streams[name] = _Stream(stream, Fraction(1, rate))

    def write(self, name: str, data: bytes, *, pts: int, duration: int, keyframe: bool) -> int:
        """A packet; times in the stream's clock, 48,000 or 90,000 Hz. Returns the time it got.

        Decoding times must rise: one that does not is put a millisecond behind the one before.
        A packet lasts until the next one of its stream; `duration` is for the last one. Raises
        ValueError for one more than 2**31 - 1 ticks after the one before, and writes nothing of it.
        """
        stream = self._streams[name]
        if stream.last >= 0:
            pts = max(pts, stream.last + stream.least)
            if pts - stream.last > _MOST_TICKS:
                hours = (pts - stream.last) * stream.time_base / 3600
                raise ValueError(f"no file can tell a hole of {float(hours):.0f} hours in a track")
        pts = max(pts, 0)
        packet = av.Packet(data)
        packet.stream = stream.stream
        packet.time_base = stream.time_base
        packet.pts = packet.dts = stream.last = pts
        packet.duration = duration
        packet.is_keyframe = keyframe
        held = stream.held
        if held is not None:
            held.duration = pts - held.pts
            self._output.mux(held)
        stream.held = packet if self._container.needs_durations else None
        if stream.held is None:
            self._output.mux(packet)
        return pts

    def close(self) -> None:
        """Complete the file."""
        try:
            for stream in self._streams.values():
                if stream.held is not None:
                    self._output.mux(stream.held)
        finally:
            self._output.close()


def _add_stream(output: av.container.OutputContainer, codec: str, first: bytes) -> Any:
    """The file's stream for a codec, with its size and codec private data."""
    match codec:
        case "VP8":
            source = av.open(io.BytesIO(_ivf(first)), format="ivf")
        case "H264":
            if not has_parameter_sets(first):
                raise ValueError(
                    "the keyframe of this H.264 has no parameter sets (SPS, PPS), and the far end "
                    "described none: without them nobody can decode it"
                )
            # The prober finds size, SPS and PPS; from them the muxer writes an avcC record, and
            # turns the start codes of every packet into lengths (ISO/IEC 14496-15).
            source = av.open(io.BytesIO(first), format="h264")
        case _:
            # The encoder is opened for its OpusHead (RFC 7845 section 5.1) and encodes nothing.
            stream = output.add_stream("libopus", rate=48000)
            stream.layout = "stereo"
            return stream
    with source:
        return output.add_stream_from_template(source.streams.video[0])


def _ivf(keyframe: bytes) -> bytes:
    """An IVF file of one VP8 keyframe, whose header has the size (RFC 6386 section 9.1)."""
    if len(keyframe) < 10 or keyframe[3:6] != b"\x9d\x01\x2a":
        raise ValueError("a VP8 keyframe has no start code")
    width, height = struct.unpack_from("<HH", keyframe, 6)
    header = struct.pack(
        "<4sHH4sHHIIII", b"DKIF", 0, 32, b"VP80", width & 0x3FFF, height & 0x3FFF, 30, 1, 1, 0
    )
    return header + struct.pack("<IQ", len(keyframe), 0) + keyframe
