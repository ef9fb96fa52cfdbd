"""A drawn human face whose mouth follows a loudness: the picture of the emulator's video track.

The picture is painted once, with Pillow, on layers of twice the size: room, body, and head. A frame
is one *pose* of the head and body out of a closed loop (the sway and the breathing), onto which a
patch with the mouth and a patch with the eyes are copied. Poses and patches are kept as planes of
YUV 4:2:0, so that a frame in the steady state costs a few copies and no drawing. Everything depends
on the arguments alone: the same `t` and `mouth` give the same picture in every process.

Colours are converted to BT.601 with limited range, which is what VP8 decoders assume
(RFC 6386 section 9.2).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, TypeAlias

import av
import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from navtalk_asyncio.emulator.portrait import (
    DESIGN,
    EYES_AREA,
    MOUTH_AREA,
    Brush,
    paint_body,
    paint_brows,
    paint_ears,
    paint_eyes,
    paint_hair_behind,
    paint_hair_front,
    paint_mouth,
    paint_room,
    paint_skin,
)

__all__ = ["BLINK_SECONDS", "LOOP_SECONDS", "MOUTH_LEVELS", "Face", "eye_openness", "mouth_level"]

MOUTH_LEVELS: Final = 12
"""Mouth openings that are told apart; `mouth` is rounded to the nearest."""

BLINK_SECONDS: Final = 0.16
"""How long one blink takes, from open to open."""

_EYE_LEVELS: Final = 4
"""Eye openings that are told apart: closed, two between, open."""

_POSES: Final = 32
"""Steps of the sway. At one loop in `LOOP_SECONDS` neighbours differ by less than a pixel."""

LOOP_SECONDS: Final = 8.0
"""How long the sway and the breathing take until they begin again."""
_BLINK_SLOT: Final = 4.0
"""Each slot of this many seconds has one blink around its middle: 2.6 to 5.4 s between them."""

_BLINK_JITTER: Final = 0.7
_PATCHES: Final = 1024
"""Patches kept. A full set (11 mouths and 3 eyes in 32 poses) has 448."""

_OVERSAMPLING: Final = 2

_Bytes: TypeAlias = NDArray[np.uint8]


def eye_openness(t: float) -> float:
    """How far the eyes are open at `t` seconds: 1 between blinks, 0 in the middle of one."""
    slot = math.floor(t / _BLINK_SLOT)
    # Squares times an irrational number are spread evenly and show no rhythm (Weyl).
    spread = (slot * slot * 0.6180339887498949) % 1.0 * 2.0 - 1.0
    middle = (slot + 0.5) * _BLINK_SLOT + spread * _BLINK_JITTER
    distance = abs(t - middle) / (BLINK_SECONDS / 2.0)
    return min(distance * distance, 1.0)


@frozen
class _Layer:
    """A painted layer: premultiplied RGBA, and where its corner lies in oversampled pixels."""

    image: Image.Image
    left: int = 0
    top: int = 0

    @staticmethod
    def of(painted: Image.Image, left: int = 0, top: int = 0) -> _Layer:
        # The blur takes away what would alias when every second pixel is read.
        soft = painted.convert("RGBa").filter(ImageFilter.GaussianBlur(0.5))
        filled = soft.getbbox()
        if filled is None:
            raise ValueError("nothing was painted on the layer")
        return _Layer(soft.crop(filled), left + filled[0], top + filled[1])


@frozen
class _Box:
    """A part of the picture in pixels. What becomes planes has even sides: whole chroma samples."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        return self.right - self.left, self.bottom - self.top


@frozen
class _Sway:
    """One pose: the head's move and turn, and the shoulders' rise, in pixels and radians."""

    dx: float
    dy: float
    turn: float
    rise: float


@frozen
class _Planes:
    """Y, Cb and Cr of a box."""

    box: _Box
    planes: tuple[_Bytes, _Bytes, _Bytes]


_MOVING_AREA: Final = (20.0, 48.0, 492.0, 512.0)
_SWAY: Final = 4.0
"""The sway moves nothing in the areas above by more than this, in design units."""


class Face:
    """A drawn face, `width` x `height` pixels, both even and between 64 and 2048.

    One face may serve several tracks. It keeps at most 32 poses and 1024 patches: about 20 MB at
    512 x 512.
    """

    def __init__(self, width: int = 512, height: int = 512) -> None:
        for side in (width, height):
            if side % 2 or not 64 <= side <= 2048:
                raise ValueError(f"a face is drawn in even sizes of 64 to 2048, not {side}")
        self.width = width
        self.height = height
        self._scale = min(width, height) / DESIGN
        self._origin = (width / 2.0 - self._scale * DESIGN / 2.0, height - self._scale * DESIGN)
        brush = Brush(
            (width * _OVERSAMPLING, height * _OVERSAMPLING),
            (self._origin[0] * _OVERSAMPLING, self._origin[1] * _OVERSAMPLING),
            self._scale * _OVERSAMPLING,
        )
        self._brush = brush
        self._room = paint_room(brush).convert("RGB").resize((width, height), Image.Resampling.BOX)
        self._room_planes = _to_planes(self._room, _Box(0, 0, width, height))
        self._hair = _Layer.of(paint_hair_behind(brush))
        self._body = _Layer.of(paint_body(brush))
        bare = brush.layer()
        paint_ears(brush, bare)
        paint_skin(brush, bare)
        paint_brows(brush, bare)
        paint_hair_front(brush, bare)
        self._bare = bare
        whole = bare.copy()
        paint_eyes(brush, whole, 1.0)
        paint_mouth(brush, whole, 0.0)
        self._head = _Layer.of(whole)
        self._moving = self._box(_MOVING_AREA, 0.0)
        self._mouth_box = self._box(MOUTH_AREA, _SWAY)
        self._eyes_box = self._box(EYES_AREA, _SWAY)
        self._mouths: dict[int, _Layer] = {}
        self._eyes: dict[int, _Layer] = {}
        self._poses: dict[int, _Planes] = {}
        self._patches: OrderedDict[tuple[str, int, int], _Planes] = OrderedDict()

    def draw(self, t: float, mouth: float) -> av.VideoFrame:
        """The picture at `t` seconds with the mouth opened by `mouth` in [0, 1].

        Blinks and sway follow `t` alone. The frame is yuv420p, its own copy, and has no pts yet.
        Values of `mouth` outside the range are clamped; a NaN raises ValueError.
        """
        pose = math.floor(t / LOOP_SECONDS * _POSES) % _POSES
        level = mouth_level(mouth)
        eyes = round(eye_openness(t) * (_EYE_LEVELS - 1))
        frame = av.VideoFrame(self.width, self.height, "yuv420p")
        planes = _views(frame)
        _copy(self._room_planes, planes)
        _copy(self._pose(pose), planes)
        if level != 0:
            _copy(self._patch("mouth", pose, level), planes)
        if eyes != _EYE_LEVELS - 1:
            _copy(self._patch("eyes", pose, eyes), planes)
        return frame

    def prepare(self) -> None:
        """Draw every pose, mouth and lid now. Without it `draw` does when it first needs one.

        Takes about half a second at 512 x 512; may run in a worker thread beside `draw`. What is
        left is about a millisecond for each mouth that is first seen in a pose.
        """
        for level in range(1, MOUTH_LEVELS):
            self._mouth_layer(level)
        for level in range(_EYE_LEVELS - 1):
            self._eyes_layer(level)
        for pose in range(_POSES):
            self._pose(pose)

    def still(self, *, mouth: float = 0.0, eyes: float = 1.0) -> Image.Image:
        """An RGB picture of the face in its middle pose: for thumbnails and tests of the drawing.

        `mouth` and `eyes` are openings in [0, 1], not rounded to levels.
        """
        head = self._bare.copy()
        paint_eyes(self._brush, head, min(max(eyes, 0.0), 1.0))
        paint_mouth(self._brush, head, min(max(mouth, 0.0), 1.0))
        box = _Box(0, 0, self.width, self.height)
        return self._compose(_Sway(0.0, 0.0, 0.0, 0.0), _Layer.of(head), box)

    def _box(self, area: tuple[float, float, float, float], margin: float) -> _Box:
        left, top, right, bottom = area
        x, y = self._origin
        grow = margin * self._scale
        return _Box(
            max(0, math.floor((left * self._scale + x - grow) / 2) * 2),
            max(0, math.floor((top * self._scale + y - grow) / 2) * 2),
            min(self.width, math.ceil((right * self._scale + x + grow) / 2) * 2),
            min(self.height, math.ceil((bottom * self._scale + y + grow) / 2) * 2),
        )

    def _sway(self, pose: int) -> _Sway:
        angle = 2.0 * math.pi * pose / _POSES
        return _Sway(
            dx=1.8 * math.sin(angle) * self._scale,
            dy=0.9 * math.sin(2.0 * angle + 0.6) * self._scale,
            turn=math.radians(0.7) * math.sin(angle + 0.9),
            # Only downwards: nothing is painted below the picture that could rise into it.
            rise=1.1 * (math.sin(2.0 * angle) - 1.0) * self._scale,
        )

    def _pose(self, pose: int) -> _Planes:
        planes = self._poses.get(pose)
        if planes is None:
            picture = self._compose(self._sway(pose), self._head, self._moving)
            planes = self._poses[pose] = _to_planes(picture, self._moving)
        return planes

    def _patch(self, part: str, pose: int, level: int) -> _Planes:
        key = (part, pose, level)
        patch = self._patches.get(key)
        if patch is None:
            if part == "mouth":
                box, head = self._mouth_box, self._mouth_layer(level)
            else:
                box, head = self._eyes_box, self._eyes_layer(level)
            patch = _to_planes(self._compose(self._sway(pose), head, box), box)
            self._patches[key] = patch
            while len(self._patches) > _PATCHES:
                self._patches.popitem(last=False)
        return patch

    def _mouth_layer(self, level: int) -> _Layer:
        layer = self._mouths.get(level)
        if layer is None:
            brush, painted, left, top = self._close_up(MOUTH_AREA)
            paint_mouth(brush, painted, level / (MOUTH_LEVELS - 1))
            layer = self._mouths[level] = _Layer.of(painted, left, top)
        return layer

    def _eyes_layer(self, level: int) -> _Layer:
        layer = self._eyes.get(level)
        if layer is None:
            brush, painted, left, top = self._close_up(EYES_AREA)
            paint_eyes(brush, painted, level / (_EYE_LEVELS - 1))
            layer = self._eyes[level] = _Layer.of(painted, left, top)
        return layer

    def _close_up(
        self, area: tuple[float, float, float, float]
    ) -> tuple[Brush, Image.Image, int, int]:
        """The part of the bare head around an area, and a brush for it.

        The margin is twice the sway, plus what a turned and resampled box reads beside itself.
        """
        box = self._box(area, 2.0 * _SWAY + 8.0)
        left, top = box.left * _OVERSAMPLING, box.top * _OVERSAMPLING
        right, bottom = box.right * _OVERSAMPLING, box.bottom * _OVERSAMPLING
        x, y = self._brush.origin
        brush = Brush((right - left, bottom - top), (x - left, y - top), self._brush.scale)
        return brush, self._bare.crop((left, top, right, bottom)), left, top

    def _compose(self, sway: _Sway, head: _Layer, box: _Box) -> Image.Image:
        """The picture inside a box: room, hair, body and head over each other."""
        picture = self._room.crop((box.left, box.top, box.right, box.bottom))
        still = _Sway(dx=0.0, dy=-sway.rise, turn=0.0, rise=0.0)
        for layer, move in ((self._hair, sway), (self._body, still), (head, sway)):
            part = self._reach(layer, box)
            if part is not None:
                moved = self._move(layer, move, part).convert("RGBA")
                picture.paste(moved, (part.left - box.left, part.top - box.top), moved)
        return picture

    def _reach(self, layer: _Layer, box: _Box) -> _Box | None:
        """The part of the box that the layer can touch in any pose; None if there is none."""
        margin = math.ceil(2.0 * _SWAY * self._scale) + 2
        width, height = layer.image.size
        left = max(box.left, layer.left // _OVERSAMPLING - margin)
        top = max(box.top, layer.top // _OVERSAMPLING - margin)
        right = min(box.right, (layer.left + width) // _OVERSAMPLING + margin)
        bottom = min(box.bottom, (layer.top + height) // _OVERSAMPLING + margin)
        return _Box(left, top, right, bottom) if left < right and top < bottom else None

    def _move(self, layer: _Layer, sway: _Sway, box: _Box) -> Image.Image:
        """A layer turned about the neck and moved, read at the pixels of the box."""
        pivot_x = self._origin[0] + 256.0 * self._scale
        pivot_y = self._origin[1] + 396.0 * self._scale
        cos, sin = math.cos(sway.turn), math.sin(sway.turn)
        # Pillow wants the way back: from a pixel of the box to a pixel of the layer.
        x = box.left - sway.dx - pivot_x
        y = box.top - sway.dy - pivot_y
        n = _OVERSAMPLING
        back = (
            n * cos,
            n * sin,
            n * (cos * x + sin * y + pivot_x) - layer.left,
            -n * sin,
            n * cos,
            n * (cos * y - sin * x + pivot_y) - layer.top,
        )
        return layer.image.transform(
            box.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR
        )


# ITU-R BT.601-7 section 2.5, for 8 bits with a headroom: Y' from 16 to 235, chroma from 16 to 240.
_LUMA: Final = np.array([65.481, 128.553, 24.966], dtype=np.float32) / np.float32(255.0)
_CHROMA: Final = np.array(
    [[-37.797, 112.0], [-74.203, -93.786], [112.0, -18.214]], dtype=np.float32
) / np.float32(255.0)


def mouth_level(mouth: float) -> int:
    """Which of the MOUTH_LEVELS an opening in [0, 1] is drawn as; 0 is shut. NaN: ValueError."""
    if math.isnan(mouth):
        raise ValueError("the mouth's opening is not a number")
    return round(min(max(mouth, 0.0), 1.0) * (MOUTH_LEVELS - 1))


def _to_planes(picture: Image.Image, box: _Box) -> _Planes:
    """RGB to Y'CbCr of BT.601 in limited range, chroma averaged over 2 x 2 pixels."""
    rgb = np.asarray(picture)
    wide = rgb.astype(np.float32)
    tall = wide[0::2] + wide[1::2]
    small = (tall[:, 0::2] + tall[:, 1::2]) / np.float32(4.0)
    y = wide @ _LUMA + np.float32(16.5)
    colour = small @ _CHROMA + np.float32(128.5)
    return _Planes(
        box,
        (
            y.astype(np.uint8),
            np.ascontiguousarray(colour[..., 0].astype(np.uint8)),
            np.ascontiguousarray(colour[..., 1].astype(np.uint8)),
        ),
    )


def _views(frame: av.VideoFrame) -> tuple[_Bytes, _Bytes, _Bytes]:
    """The frame's planes as writable arrays, without the padding at the end of each line."""
    y, cb, cr = (
        np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)[
            :, : plane.width
        ]
        for plane in frame.planes
    )
    return y, cb, cr


def _copy(source: _Planes, target: tuple[_Bytes, _Bytes, _Bytes]) -> None:
    box = source.box
    for shift, part, whole in zip((0, 1, 1), source.planes, target, strict=True):
        whole[box.top >> shift : box.bottom >> shift, box.left >> shift : box.right >> shift] = part
