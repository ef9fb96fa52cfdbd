"""PCM16 at 24,000 Hz and how it is cut (protocol.md 5.12)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.wire import audio


def test_the_format_is_pcm16_mono_at_24_khz() -> None:
    assert (audio.SAMPLE_RATE, audio.SAMPLE_WIDTH, audio.CHANNELS) == (24_000, 2, 1)


def test_a_browser_block_is_cut_as_stock_clients_cut_it() -> None:
    # 8192 samples: five messages of 3072 bytes, one of 1024 (table in 5.12).
    block = bytes(range(256)) * 64
    pieces = list(audio.split_pcm(block))
    assert [len(piece) for piece in pieces] == [3072] * 5 + [1024]
    assert b"".join(pieces) == block
    # The same slices as cutting the block's base64 text every 4096 characters.
    text = base64.b64encode(block).decode()
    slices = [text[at : at + 4096] for at in range(0, len(text), 4096)]
    assert [base64.b64encode(piece).decode() for piece in pieces] == slices


def test_nothing_is_cut_into_nothing() -> None:
    assert list(audio.split_pcm(b"")) == []


@given(samples=st.integers(0, 3000), frame=st.integers(1, 400).map(lambda n: 2 * n))
def test_pieces_are_whole_samples_and_join_to_the_whole(samples: int, frame: int) -> None:
    pcm = b"".join(n.to_bytes(2, "little") for n in range(samples))
    pieces = list(audio.split_pcm(pcm, frame))
    assert b"".join(pieces) == pcm
    assert all(len(piece) == frame for piece in pieces[:-1])
    assert all(0 < len(piece) <= frame and len(piece) % 2 == 0 for piece in pieces)


@pytest.mark.parametrize(("pcm", "frame"), [(b"abc", 2), (b"ab", 0), (b"ab", -2), (b"ab", 3)])
def test_half_samples_are_refused_at_the_call(pcm: bytes, frame: int) -> None:
    with pytest.raises(LocalProtocolError):
        audio.split_pcm(pcm, frame)


def test_duration_is_in_seconds() -> None:
    assert audio.duration(bytes(48_000)) == 1.0
    assert audio.duration(bytes(3072)) == 0.064
    assert audio.duration(b"") == 0.0
