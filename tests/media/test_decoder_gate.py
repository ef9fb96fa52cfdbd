from __future__ import annotations

from typing import Any

from navtalk_asyncio.media.decoder_gate import DecoderGate
from navtalk_proto.media import MediaKind


def test_the_end_is_not_discarded() -> None:
    """A thread that is busy with a frame has not seen its end when what is queued is dropped."""
    delivered: list[Any] = []
    dropped: list[None] = []

    def deliver(codec: Any, frame: Any) -> bool:
        delivered.append((codec, frame))
        return True

    gate = DecoderGate(MediaKind.AUDIO, deliver)
    gate.wanted = lambda: True
    gate.on_drop = lambda: dropped.append(None)
    gate.put(("opus", 1))
    gate.put(None)
    gate.discard()
    assert gate.get() is None
    assert delivered == [("opus", 1)]
    assert len(dropped) == 1
    # The end itself is no frame.
    gate.put(("opus", 2))
    assert delivered == [("opus", 1)]
