"""Audio files of other rates, layouts and codecs become PCM of 24,000 Hz in even frames."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from navtalk_asyncio.media.audio_file import AudioFileError, iter_pcm


def sine(hertz: float, seconds: float, rate: int, amplitude: float = 8000.0) -> NDArray[np.int16]:
    t = np.arange(int(seconds * rate)) / rate
    return np.round(amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def loudest_hertz(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, dtype="<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(spectrum.argmax() * 24_000 / samples.size)


def test_a_file_in_the_wire_format_is_not_changed(tmp_path: Path) -> None:
    samples = sine(440, 1.01, 24_000)
    frames = list(iter_pcm(write_wav(tmp_path / "a.wav", samples, 24_000)))
    assert b"".join(frames) == samples.astype("<i2").tobytes()
    # 20 ms are 480 samples, 960 bytes; 1.01 s are 50 of them and a half.
    assert [len(frame) for frame in frames] == [960] * 50 + [480]


def test_the_frames_length_can_be_chosen(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", sine(440, 0.1, 24_000), 24_000)
    assert [len(frame) for frame in iter_pcm(path, frame_ms=64)] == [3072, 4800 - 3072]
    assert [len(frame) for frame in iter_pcm(path, frame_ms=10_000)] == [4800]
    assert {len(frame) for frame in iter_pcm(path, frame_ms=1)} == {48}


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_keeps_length_pitch_and_level(tmp_path: Path, rate: int) -> None:
    pcm = b"".join(iter_pcm(write_wav(tmp_path / "a.wav", sine(440, 2.0, rate), rate)))
    assert len(pcm) / 48_000 == pytest.approx(2.0, abs=0.003)
    assert loudest_hertz(pcm) == pytest.approx(440.0, abs=1.0)
    middle = np.frombuffer(pcm, dtype="<i2")[10_000:-10_000].astype(float)
    # The root mean square of a sine is its amplitude by the root of 2.
    assert np.sqrt((middle**2).mean()) == pytest.approx(8000 / np.sqrt(2), rel=0.02)


def test_stereo_is_mixed(tmp_path: Path) -> None:
    left, right = sine(300, 1.0, 48_000), sine(3000, 1.0, 48_000)
    both = np.stack([left, right], axis=1).reshape(-1)
    pcm = b"".join(iter_pcm(write_wav(tmp_path / "a.wav", both, 48_000, channels=2)))
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, dtype="<i2").astype(float)))
    hertz = np.fft.rfftfreq(len(pcm) // 2, 1 / 24_000)
    peaks = hertz[spectrum > spectrum.max() / 4]
    assert {round(float(f) / 100) * 100 for f in peaks} == {300, 3000}


def test_a_compressed_file_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        samples = sine(440, 1.0, 48_000)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pcm = b"".join(iter_pcm(path))
    assert len(pcm) / 48_000 == pytest.approx(1.0, abs=0.05)
    assert loudest_hertz(pcm) == pytest.approx(440.0, abs=2.0)


def test_an_open_file_is_read_and_left_open(tmp_path: Path) -> None:
    samples = sine(440, 0.5, 24_000)
    path = write_wav(tmp_path / "a.wav", samples, 24_000)
    with path.open("rb") as file:
        assert b"".join(iter_pcm(file)) == samples.astype("<i2").tobytes()
        assert not file.closed


class CountingFile(io.BytesIO):
    """Knows how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_long_file_is_read_as_it_is_taken(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", sine(440, 60.0, 24_000), 24_000)
    file = CountingFile(path.read_bytes())
    frames = iter_pcm(file)
    for _ in range(50):
        next(frames)
    # One second of 60: the container's probe and the decoder read ahead a little.
    assert file.taken < 400_000 < path.stat().st_size


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(iter_pcm(tmp_path / "none.wav"))


def test_a_url_is_the_name_of_a_file_and_not_fetched() -> None:
    with pytest.raises(FileNotFoundError):
        next(iter_pcm("http://127.0.0.1:9/a.wav"))


def test_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"this is not audio at all" * 100)
    with pytest.raises(AudioFileError, match="not a media file"):
        next(iter_pcm(path))


def test_a_picture_has_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(AudioFileError, match="no audio stream"):
        next(iter_pcm(path))


@pytest.mark.parametrize("frame_ms", [0, -20, 10_001])
def test_a_frame_length_out_of_range_is_refused_at_the_call(frame_ms: int) -> None:
    with pytest.raises(ValueError, match="frame_ms"):
        iter_pcm("unused.wav", frame_ms=frame_ms)
