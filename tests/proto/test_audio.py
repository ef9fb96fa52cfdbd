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


# ---- what a client says in pieces of any size


def test_tiny_chunks_become_a_frame() -> None:
    assembler = audio.FrameAssembler()
    chunk = bytes(range(240))  # 5 ms
    assert [assembler.push(chunk) for _ in range(3)] == [[], [], []]
    assert assembler.held == 720
    assert assembler.push(chunk) == [chunk * 4]
    assert assembler.held == 0


def test_a_frame_is_20_to_64_ms() -> None:
    assert audio.MIN_FRAME_BYTES == 20 * 48
    assert audio.FRAME_BYTES == 64 * 48
    assembler = audio.FrameAssembler()
    assert assembler.push(bytes(958)) == []
    assert assembler.flush() == bytes(958)
    assert assembler.push(bytes(960)) == [bytes(960)]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (3072, [3072]),
        (3074, [2114, 960]),  # alone the 2 bytes would be no message
        (4030, [3070, 960]),
        (4032, [3072, 960]),
        (2 * 3072 + 958, [3072, 3070, 960]),
        (16_384, [3072] * 5 + [1024]),  # a browser's block (table in 5.12)
    ],
)
def test_what_is_left_of_a_big_chunk_does_not_wait(given: int, sizes: list[int]) -> None:
    assembler = audio.FrameAssembler()
    pcm = bytes(n % 251 for n in range(given))
    pieces = assembler.push(pcm)
    assert [len(piece) for piece in pieces] == sizes
    assert b"".join(pieces) == pcm
    assert assembler.held == 0


def test_half_a_sample_changes_nothing() -> None:
    assembler = audio.FrameAssembler()
    assembler.push(b"\1\2")
    for odd in (b"\3", bytes(4097)):
        with pytest.raises(LocalProtocolError, match="even number"):
            assembler.push(odd)
    assert assembler.flush() == b"\1\2"


def test_flushing_and_clearing_empty_it() -> None:
    assembler = audio.FrameAssembler()
    assert (assembler.flush(), assembler.clear()) == (b"", 0)
    assembler.push(bytes(100))
    assert assembler.clear() == 100
    assert (assembler.held, assembler.flush()) == (0, b"")


@given(sizes=st.lists(st.integers(0, 4000).map(lambda n: 2 * n), max_size=20))
def test_nothing_is_lost_moved_or_too_small(sizes: list[int]) -> None:
    assembler = audio.FrameAssembler()
    pcm = bytes(n * 7 % 251 for n in range(sum(sizes)))
    at, sent = 0, b""
    for size in sizes:
        pieces = assembler.push(pcm[at : at + size])
        at += size
        assert all(960 <= len(piece) <= 3072 and len(piece) % 2 == 0 for piece in pieces)
        sent += b"".join(pieces)
        assert assembler.held == at - len(sent) < 960
    assert sent + assembler.flush() == pcm
