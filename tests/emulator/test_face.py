"""The drawn face: what moves, what does not, and that it depends on its arguments alone."""

from __future__ import annotations

import math
from itertools import pairwise

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from navtalk_asyncio.emulator.face import Face, eye_openness

# Parts of the 512 x 512 picture: left, top, right, bottom, with the sway's few pixels around.
MOUTH = (196, 280, 316, 382)
LIPS = (214, 296, 298, 364)
EYES = (168, 186, 344, 248)


@pytest.fixture(scope="module")
def face() -> Face:
    return Face()


def luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return frame.to_ndarray()[: frame.height].astype(np.uint8)


def part(plane: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    return plane[top:bottom, left:right]


def between_blinks(start: float) -> float:
    """The first time from `start` on, in steps of one frame, with open eyes."""
    t = start
    while eye_openness(t) < 1.0:
        t += 0.04
    return t


def blink_after(start: float) -> float:
    """The first time from `start` on, in milliseconds' steps, with shut eyes."""
    t = start
    while eye_openness(t) > 0.01:
        t += 0.001
    return t


def test_a_frame_is_yuv420p_in_limited_range(face: Face) -> None:
    frame = face.draw(0.0, 0.0)
    assert (frame.width, frame.height, frame.format.name) == (512, 512, "yuv420p")
    planes = frame.to_ndarray()
    assert planes[:512].min() >= 16
    assert planes[:512].max() <= 235
    assert planes[512:].min() >= 16
    assert planes[512:].max() <= 240


def test_frames_do_not_share_their_planes(face: Face) -> None:
    first, second = face.draw(0.0, 0.0), face.draw(0.0, 0.0)
    before = luma(second)
    np.frombuffer(memoryview(first.planes[0]), dtype=np.uint8)[:] = 0
    assert (luma(second) == before).all()
    assert (luma(face.draw(0.0, 0.0)) == before).all()


def test_the_picture_depends_on_the_arguments_alone(face: Face) -> None:
    other = Face()
    other.prepare()
    for t, mouth in ((0.0, 0.0), (1.3, 0.5), (7.9, 1.0), (1234.5, 0.27)):
        assert (face.draw(t, mouth).to_ndarray() == other.draw(t, mouth).to_ndarray()).all()


def test_the_colours_are_those_that_were_painted(face: Face) -> None:
    # FFmpeg's own conversion back to RGB must find the colour of the room, which does not move.
    seen = face.draw(0.0, 0.0).reformat(format="rgb24").to_ndarray()[6, 6]
    painted = face.still().getpixel((6, 6))
    assert isinstance(painted, tuple)
    assert max(abs(int(a) - b) for a, b in zip(seen, painted, strict=True)) <= 4


def test_there_is_a_face_in_the_middle(face: Face) -> None:
    # Cheek, forehead and chin are skin: red above its luma, blue below.
    planes = face.draw(0.0, 0.0).to_ndarray()
    cb, cr = planes[512:640].reshape(256, 256), planes[640:].reshape(256, 256)
    for x, y in ((205, 265), (256, 160), (256, 350)):
        assert cr[y // 2, x // 2] > 140
        assert cb[y // 2, x // 2] < 120
    assert cr[3, 3] < 132  # the room


def test_an_opening_mouth_shows_its_dark_inside(face: Face) -> None:
    t = between_blinks(0.0)
    dark = [int((part(luma(face.draw(t, m)), LIPS) < 75).sum()) for m in (0, 0.3, 0.6, 0.8, 1)]
    # Shut lips have a dark line between them, in whose place teeth appear first.
    assert dark[1:] == sorted(dark[1:])
    assert dark[-1] > 2 * max(dark[:2])
    bright = [int((part(luma(face.draw(t, m)), LIPS) > 215).sum()) for m in (0, 0.6)]
    assert bright[1] > bright[0] + 100  # teeth


def test_the_mouth_changes_nothing_beside_itself(face: Face) -> None:
    for t in (0.0, 2.0, 5.1):
        closed, wide = luma(face.draw(t, 0.0)), luma(face.draw(t, 1.0))
        changed = closed != wide
        inside = int(part(changed, MOUTH).sum())
        assert inside > 1000
        assert int(changed.sum()) == inside


def test_the_edge_of_the_mouth_patch_is_not_seen(face: Face) -> None:
    # The closed mouth comes with the pose, the others are patches on it: at the patch's border
    # both must be the same to within rounding, or a frame appears around the mouth.
    for t in (0.0, 2.0, 5.1):
        rest, talking = luma(face.draw(t, 0.0)), luma(face.draw(t, 0.2))
        difference = np.abs(rest.astype(int) - talking.astype(int))
        changed = np.argwhere(difference > 3)
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
        assert left > 206
        assert right < 306
        assert top > 290
        assert bottom < 372


def test_twelve_mouths_are_told_apart(face: Face) -> None:
    t = between_blinks(0.0)
    pictures = {part(luma(face.draw(t, k / 200)), MOUTH).tobytes() for k in range(201)}
    assert len(pictures) == 12


def test_a_mouth_out_of_range_is_clamped_and_nan_is_refused(face: Face) -> None:
    assert (luma(face.draw(0.0, 7.0)) == luma(face.draw(0.0, 1.0))).all()
    assert (luma(face.draw(0.0, -1.0)) == luma(face.draw(0.0, 0.0))).all()
    with pytest.raises(ValueError, match="not a number"):
        face.draw(0.0, math.nan)


def test_blinks_take_160_ms_and_come_every_few_seconds() -> None:
    shut = [eye_openness(k / 1000) < 1.0 for k in range(120_000)]
    starts = [k for k in range(1, len(shut)) if shut[k] and not shut[k - 1]]
    ends = [k for k in range(1, len(shut)) if shut[k - 1] and not shut[k]]
    assert len(starts) == len(ends) == 30
    assert all(158 <= end - start <= 161 for start, end in zip(starts, ends, strict=True))
    gaps = [b - a for a, b in pairwise(starts)]
    assert 2500 <= min(gaps) < max(gaps) <= 5500
    assert len(set(gaps)) > 15  # nobody blinks like a clock


def test_a_blink_hides_the_eyes(face: Face) -> None:
    middle = blink_after(0.0)
    awake = luma(face.draw(between_blinks(middle), 0.0))
    asleep = luma(face.draw(middle, 0.0))
    assert int((part(awake, EYES) > 215).sum()) > 150  # the white of the eyes
    assert int((part(asleep, EYES) > 215).sum()) < 10


def test_the_head_sways_and_comes_back(face: Face) -> None:
    t = between_blinks(0.2)
    assert eye_openness(t + 8.0) == 1.0
    assert eye_openness(t + 2.0) == 1.0
    assert (luma(face.draw(t, 0.0)) == luma(face.draw(t + 8.0, 0.0))).all()
    moved = luma(face.draw(t, 0.0)) != luma(face.draw(t + 2.0, 0.0))
    assert int(moved.sum()) > 5000
    # The room beside the head stays.
    assert not moved[:40].any()
    assert not moved[:400, :16].any()


def test_the_lower_edge_is_always_covered(face: Face) -> None:
    # The pullover reaches the last line in every pose of the breathing.
    for k in range(32):
        last = luma(face.draw(k / 4.0, 0.0))[511, 180:330]
        assert int(last.max()) < 120


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (64, 64), (256, 256)])
def test_other_sizes_hold_the_same_face(width: int, height: int) -> None:
    face = Face(width, height)
    frame = face.draw(0.0, 0.0)
    assert (frame.width, frame.height) == (width, height)
    scale = min(width, height) / 512
    x = int(width / 2 + (205 - 256) * scale) // 2
    y = int(height - (512 - 265) * scale) // 2
    planes = frame.to_ndarray()
    cr = planes[height + height // 4 :].reshape(height // 2, width // 2)
    assert cr[y, x] > 140
    closed, wide = luma(face.draw(0.0, 0.0)), luma(face.draw(0.0, 1.0))
    assert (closed != wide).any()


@pytest.mark.parametrize("side", [62, 63, 513, 2050, 0, -2])
def test_sizes_that_cannot_be_drawn_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match="even sizes"):
        Face(side, 512)
    with pytest.raises(ValueError, match="even sizes"):
        Face(512, side)


def test_a_still_is_a_picture_of_its_arguments(face: Face) -> None:
    rest, wide, asleep = face.still(), face.still(mouth=1.0), face.still(eyes=0.0)
    assert rest.mode == "RGB"
    assert rest.size == (512, 512)
    box = (210, 300, 302, 368)
    assert rest.crop(box).tobytes() != wide.crop(box).tobytes()
    assert rest.crop((180, 200, 332, 238)).tobytes() != asleep.crop((180, 200, 332, 238)).tobytes()
    assert rest.crop((0, 0, 512, 190)).tobytes() == wide.crop((0, 0, 512, 190)).tobytes()
