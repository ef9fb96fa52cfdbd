"""When a picture counts as changed: drawn, noisy and resized ones, at times of our own."""

from __future__ import annotations

import random

import av
import pytest

from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.media.picture_clock import (
    CHANGED,
    LEVELS,
    LOOK_SECONDS,
    PictureClock,
    _sample,
)


def picture(value: int = 100, *, width: int = 320, height: int = 240) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def noisy(seed: int, *, level: int) -> av.VideoFrame:
    frame = picture()
    noise = random.Random(seed)
    luma = frame.planes[0]
    luma.update(bytes(100 + noise.randint(-level, level) for _ in range(luma.buffer_size)))
    return frame


def test_the_age_counts_from_the_restart() -> None:
    clock = PictureClock()
    clock.restart(100.0)
    assert clock.age(107.0) == 7.0
    clock.see(picture(), 108.0)
    assert clock.age(108.5) == 0.5, "a first picture is a new one"
    clock.see(picture(), 109.0)
    assert clock.age(109.0) == 1.0
    clock.restart(110.0)
    clock.see(picture(), 110.0)
    assert clock.age(110.0) == 0.0


def test_the_same_picture_coded_anew_is_the_same() -> None:
    clock = PictureClock()
    clock.restart(0.0)
    clock.see(picture(), 0.0)
    for n in range(1, 40):
        clock.see(noisy(n, level=LEVELS - 1), n * LOOK_SECONDS)
    assert clock.age(10.0) == 10.0


def test_slow_movement_adds_up() -> None:
    clock = PictureClock()
    clock.restart(0.0)
    for n in range(40):
        clock.see(picture(100 + n), float(n))
    assert clock.age(39.0) < LEVELS


def test_a_look_between_two_looks_is_not_taken() -> None:
    clock = PictureClock()
    clock.restart(0.0)
    clock.see(picture(100), 0.0)
    clock.see(picture(200), LOOK_SECONDS / 2)
    assert clock.age(LOOK_SECONDS / 2) == LOOK_SECONDS / 2
    clock.see(picture(200), LOOK_SECONDS)
    assert clock.age(LOOK_SECONDS) == 0.0


@pytest.mark.parametrize("samples", [CHANGED - 1, CHANGED])
def test_so_many_samples_have_to_change(samples: int) -> None:
    clock = PictureClock()
    clock.restart(0.0)
    clock.see(picture(), 0.0)
    changed = picture()
    luma = changed.planes[0]
    pixels = bytearray(bytes(luma))
    for row in range(2, 2 + 5 * samples, 5):
        pixels[row * luma.line_size + 2] = 200
    luma.update(bytes(pixels))
    clock.see(changed, 1.0)
    assert clock.age(1.0) == (0.0 if samples == CHANGED else 1.0)


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (1920, 1080), (321, 179)])
def test_a_size_that_changes_is_a_change(size: tuple[int, int]) -> None:
    clock = PictureClock()
    clock.restart(0.0)
    clock.see(picture(), 0.0)
    width, height = size
    clock.see(picture(width=width, height=height), 1.0)
    assert clock.age(1.0) == 0.0
    clock.see(picture(width=width, height=height), 2.0)
    assert clock.age(2.0) == 1.0
    clock.see(picture(150, width=width, height=height), 3.0)
    assert clock.age(3.0) == 0.0


def test_an_idle_face_changes_ten_times_what_has_to_change() -> None:
    face = Face()
    looks = [face.draw(n * LOOK_SECONDS, 0.0) for n in range(32 + 4)]
    samples = [_sample(look.planes[0], look.width, look.height) for look in looks]
    for before, after in zip(samples, samples[4:], strict=False):
        changed = sum(abs(a - b) >= LEVELS for a, b in zip(before, after, strict=True))
        assert changed >= 10 * CHANGED


def test_an_idle_face_moves_at_every_size() -> None:
    for side in (128, 256, 512):
        clock = PictureClock()
        clock.restart(0.0)
        face = Face(side, side)
        ages = []
        for n in range(8 * 25):
            clock.see(face.draw(n / 25, 0.0), n / 25)
            ages.append(clock.age(n / 25))
        # The sway turns twice in eight seconds, and rests for a moment there.
        assert max(ages) < 1.0
