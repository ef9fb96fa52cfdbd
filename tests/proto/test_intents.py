from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.intents import Close, Negotiate, SayText, SendAudio
from navtalk_proto.media import MediaKind, MediaLine


def test_defaults() -> None:
    assert Close() == Close(code=1000, reason="")
    assert SayText(text="hi").respond is True


def test_audio_does_not_show_in_a_repr() -> None:
    assert repr(SendAudio(pcm=b"\x01\x02" * 8)) == "SendAudio(pcm=<16 bytes>)"


@pytest.mark.parametrize("media", [("video",), [MediaKind.VIDEO], (None,), 5])
def test_a_wish_names_media_lines(media: Any) -> None:
    with pytest.raises(TypeError):
        Negotiate(media=media)


def test_a_wish_keeps_its_lines() -> None:
    line = MediaLine(kind=MediaKind.AUDIO)
    assert Negotiate(media=(line,)).media == (line,)
