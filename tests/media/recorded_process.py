"""A process that records until it is killed. Run by test_recording_killed.py.

Usage: python recorded_process.py FILE FRAMES_FILE SECONDS  (pickled video and audio frames)
Says "going" once so many seconds of the call are given, and goes on. Without sender reports in the
first three, as with senders that make none.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.media.recorder import Recorder
from navtalk_proto.media import MediaKind

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO


class Source:
    def __init__(self) -> None:
        self.sinks: dict[MediaKind, Callable[[EncodedFrame], None]] = {}

    def add_encoded_sink(self, kind: MediaKind, sink: Any, on_end: Any = None) -> Any:
        self.sinks[kind] = sink
        return lambda: None

    def codec(self, kind: MediaKind) -> None:
        return None

    def request_keyframe(self) -> bool:
        return True


def frame(kind: MediaKind, codec: str, data: bytes, at: float, rate: int, key: bool) -> Any:
    return EncodedFrame(
        kind=kind,
        track_id=kind.value,
        codec=codec,
        data=data,
        timestamp=round(at * rate),
        clock_rate=rate,
        keyframe=key,
        arrival=at,
        sender_time=None if at < 3.0 else 1e9 + at,
    )


async def main(path: str, until: int, codec: str, video: list[bytes], audio: list[bytes]) -> None:
    source: Any = Source()
    async with Recorder(source, path) as recorder:
        second = 0
        while True:
            for n in range(50):
                data = audio[(second * 50 + n) % len(audio)]
                at = second + n / 50
                source.sinks[AUDIO](frame(AUDIO, "opus", data, at, 48_000, True))
                if n % 2 == 0:
                    number = (second * 25 + n // 2) % len(video)
                    key = number % 10 == 0
                    source.sinks[VIDEO](frame(VIDEO, codec, video[number], at, 90_000, key))
            second += 1
            # In the first second nothing is written: it waits for reports.
            while second > 1 and recorder.counters.written < second * 75:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
            if second == until:
                print("going", flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[3]), *pickle.loads(Path(sys.argv[2]).read_bytes())))
