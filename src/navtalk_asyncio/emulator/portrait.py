"""The painted portrait: what a face is made of, as shapes in a square of 512 by 512 design units.

Every function paints one part on an RGBA layer with a :class:`Brush`; nothing here knows of frames
or time. :mod:`navtalk_asyncio.emulator.face` puts the parts together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from attrs import frozen
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = [
    "DESIGN",
    "EYES_AREA",
    "MOUTH_AREA",
    "Brush",
    "paint_body",
    "paint_brows",
    "paint_ears",
    "paint_eyes",
    "paint_hair_behind",
    "paint_hair_front",
    "paint_mouth",
    "paint_room",
    "paint_skin",
]

DESIGN: Final = 512.0
"""The side of the square in which all coordinates here are given."""

MOUTH_AREA: Final = (206.0, 290.0, 306.0, 372.0)
EYES_AREA: Final = (178.0, 196.0, 334.0, 238.0)
"""All that `paint_mouth` and `paint_eyes` change: left, top, right, bottom."""

_Rgb: TypeAlias = tuple[int, int, int]
_Points: TypeAlias = Sequence[tuple[float, float]]

_SKIN: Final[_Rgb] = (240, 196, 168)
_SKIN_SHADE: Final[_Rgb] = (201, 139, 112)
_SKIN_LIGHT: Final[_Rgb] = (255, 224, 200)
_BLUSH: Final[_Rgb] = (232, 138, 122)
_HAIR: Final[_Rgb] = (84, 52, 38)
_HAIR_DARK: Final[_Rgb] = (54, 32, 25)
_HAIR_LIGHT: Final[_Rgb] = (142, 94, 66)
_LIP: Final[_Rgb] = (205, 104, 100)
_LIP_DARK: Final[_Rgb] = (168, 74, 76)
_LIP_LIGHT: Final[_Rgb] = (234, 150, 142)
_IRIS: Final[_Rgb] = (92, 128, 98)
_IRIS_DARK: Final[_Rgb] = (44, 66, 52)
_LASH: Final[_Rgb] = (58, 36, 30)
_BROW: Final[_Rgb] = (92, 58, 43)
_CLOTH: Final[_Rgb] = (46, 92, 116)
_CLOTH_DARK: Final[_Rgb] = (28, 60, 80)
_CLOTH_LIGHT: Final[_Rgb] = (84, 136, 158)


@frozen
class _Mask:
    """Where to paint: an 8-bit opacity image and its place on the layer, in the layer's pixels."""

    image: Image.Image
    left: int
    top: int

    def crop(self, left: int, top: int, size: tuple[int, int]) -> Image.Image:
        """The part in a box of the layer; 0 where the mask does not reach."""
        x, y = left - self.left, top - self.top
        return self.image.crop((x, y, x + size[0], y + size[1]))


class Brush:
    """Paints smooth shapes given in design coordinates on RGBA layers.

    A layer is `size` pixels large; the design's origin lies `origin` pixels right of and below the
    layer's upper left corner, and one design unit is `scale` pixels.
    """

    def __init__(self, size: tuple[int, int], origin: tuple[float, float], scale: float) -> None:
        self.size = size
        self.origin = origin
        self.scale = scale

    def layer(self) -> Image.Image:
        """A transparent layer to paint on."""
        return Image.new("RGBA", self.size, (0, 0, 0, 0))

    def _place(self, points: _Points) -> _Points:
        dx, dy = self.origin
        return [(x * self.scale + dx, y * self.scale + dy) for x, y in points]

    def _canvas(self, points: _Points, reach: float) -> _Mask:
        """An empty mask that holds the points (in pixels) and `reach` pixels around them."""
        left = min(max(math.floor(min(x for x, _ in points) - reach), 0), self.size[0] - 1)
        top = min(max(math.floor(min(y for _, y in points) - reach), 0), self.size[1] - 1)
        right = min(max(math.ceil(max(x for x, _ in points) + reach), left + 1), self.size[0])
        bottom = min(max(math.ceil(max(y for _, y in points) + reach), top + 1), self.size[1])
        return _Mask(Image.new("L", (right - left, bottom - top), 0), left, top)

    def _blurred(self, mask: _Mask, soft: float) -> _Mask:
        if soft <= 0.0:
            return mask
        blur = ImageFilter.GaussianBlur(soft * self.scale)
        return _Mask(mask.image.filter(blur), mask.left, mask.top)

    def shape(self, points: _Points, *, soft: float = 0.0, closed: bool = True) -> _Mask:
        """The area inside a smooth curve (`closed`) or a polygon; `soft` is a blur's radius."""
        outline = self._place(_smooth(points) if closed else points)
        mask = self._canvas(outline, 3.0 * soft * self.scale + 2.0)
        ImageDraw.Draw(mask.image).polygon(
            [(x - mask.left, y - mask.top) for x, y in outline], fill=255
        )
        return self._blurred(mask, soft)

    def oval(self, x: float, y: float, rx: float, ry: float, *, soft: float = 0.0) -> _Mask:
        """The area inside an ellipse."""
        corners = self._place([(x - rx, y - ry), (x + rx, y + ry)])
        mask = self._canvas(corners, 3.0 * soft * self.scale + 2.0)
        ImageDraw.Draw(mask.image).ellipse(
            [(px - mask.left, py - mask.top) for px, py in corners], fill=255
        )
        return self._blurred(mask, soft)

    def stroke(
        self, points: _Points, widths: tuple[float, float, float], *, soft: float = 0.0
    ) -> _Mask:
        """A smooth open curve whose width goes from the first to the second to the third value."""
        curve = self._place(_smooth(points, closed=False))
        mask = self._canvas(curve, (3.0 * soft + max(widths)) * self.scale + 2.0)
        draw = ImageDraw.Draw(mask.image)
        a, b, c = widths
        for i, (x, y) in enumerate(curve):
            u = 2.0 * i / (len(curve) - 1)
            r = (a + (b - a) * u if u < 1.0 else b + (c - b) * (u - 1.0)) * self.scale / 2.0
            px, py = x - mask.left, y - mask.top
            draw.ellipse((px - r, py - r, px + r, py + r), fill=255)
        return self._blurred(mask, soft)

    @staticmethod
    def paint(layer: Image.Image, mask: _Mask, colour: _Rgb, opacity: float = 1.0) -> None:
        """Lay a colour over the layer where the mask is set."""
        alpha = mask.image
        if opacity < 1.0:
            alpha = alpha.point([round(v * opacity) for v in range(256)])
        over = Image.new("RGBA", alpha.size, (*colour, 0))
        over.putalpha(alpha)
        layer.alpha_composite(over, (mask.left, mask.top))


def _smooth(points: _Points, *, closed: bool = True, steps: int = 24) -> list[tuple[float, float]]:
    """A Catmull-Rom spline through the points."""
    n = len(points)
    curve: list[tuple[float, float]] = []
    for i in range(n if closed else n - 1):
        if closed:
            p0, p1, p2, p3 = (points[(i + k - 1) % n] for k in range(4))
        else:
            p0, p1, p2, p3 = (points[min(max(i + k - 1, 0), n - 1)] for k in range(4))
        for s in range(steps):
            u = s / steps
            curve.append(
                (_spline(p0[0], p1[0], p2[0], p3[0], u), _spline(p0[1], p1[1], p2[1], p3[1], u))
            )
    if not closed:
        curve.append(points[-1])
    return curve


def _spline(a: float, b: float, c: float, d: float, u: float) -> float:
    return 0.5 * (
        2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u * u + (3 * b - 3 * c + d - a) * u**3
    )


def _mirror(points: _Points) -> list[tuple[float, float]]:
    return [(DESIGN - x, y) for x, y in points]


def _inside(mask: _Mask, clip: _Mask) -> _Mask:
    """The part of the mask that `clip` lets through."""
    held = clip.crop(mask.left, mask.top, mask.image.size)
    return _Mask(ImageChops.multiply(mask.image, held), mask.left, mask.top)


def _outside(mask: _Mask, hole: _Mask) -> _Mask:
    """The part of the mask that `hole` does not cover."""
    held = hole.crop(mask.left, mask.top, mask.image.size)
    return _Mask(ImageChops.subtract(mask.image, held), mask.left, mask.top)


def _gradient(size: tuple[int, int], top: _Rgb, bottom: _Rgb) -> Image.Image:
    ramp = np.linspace(0.0, 1.0, size[1])[:, None, None]
    column = np.array(top) * (1.0 - ramp) + np.array(bottom) * ramp
    pixels = np.broadcast_to(column, (size[1], size[0], 3))
    return Image.fromarray(np.ascontiguousarray(pixels.round().astype(np.uint8)), "RGB")


def paint_room(brush: Brush) -> Image.Image:
    """The background: a wall with a soft light behind the head and a few spots out of focus."""
    room = _gradient(brush.size, (208, 220, 226), (150, 170, 182)).convert("RGBA")
    brush.paint(room, brush.oval(256, 200, 230, 210, soft=70), (246, 240, 228), 0.85)
    for x, y, r, colour, opacity in (
        (60, 110, 46, (255, 236, 206), 0.34),
        (128, 52, 26, (255, 246, 224), 0.30),
        (452, 84, 54, (255, 240, 214), 0.30),
        (474, 232, 34, (236, 246, 250), 0.26),
        (30, 268, 30, (236, 246, 250), 0.24),
        (392, 28, 22, (255, 248, 232), 0.28),
    ):
        brush.paint(room, brush.oval(x, y, r, r, soft=7), colour, opacity)
    brush.paint(room, brush.oval(256, 560, 420, 120, soft=60), (92, 112, 126), 0.45)
    return room


def paint_body(brush: Brush) -> Image.Image:
    """Shoulders, a pullover with a round collar, and the neck."""
    body = brush.layer()
    right: _Points = [(256, 424), (300, 412), (352, 428), (412, 446), (456, 482), (474, 560)]
    cloth = brush.shape([*right, *_mirror(right[::-1])[:-1]])
    brush.paint(body, cloth, _CLOTH)
    brush.paint(body, _inside(brush.oval(180, 450, 95, 30, soft=18), cloth), _CLOTH_LIGHT, 0.75)
    brush.paint(body, _inside(brush.oval(350, 452, 60, 22, soft=16), cloth), _CLOTH_LIGHT, 0.4)
    brush.paint(body, _inside(brush.oval(440, 520, 60, 80, soft=24), cloth), _CLOTH_DARK, 0.9)
    brush.paint(body, _inside(brush.oval(76, 530, 40, 70, soft=22), cloth), _CLOTH_DARK, 0.6)
    for fold in ([(150, 470), (164, 498), (160, 540)], [(360, 470), (346, 500), (352, 540)]):
        brush.paint(body, _inside(brush.stroke(fold, (1, 5, 9), soft=4), cloth), _CLOTH_DARK, 0.7)

    neck_right: _Points = [(256, 320), (288, 330), (291, 376), (296, 402), (322, 418), (256, 457)]
    neck = brush.shape([*neck_right, *_mirror(neck_right[1:-1][::-1])])
    brush.paint(body, neck, _SKIN)
    brush.paint(body, _inside(brush.oval(256, 356, 62, 44, soft=11), neck), _SKIN_SHADE, 0.85)
    brush.paint(body, _inside(brush.oval(300, 400, 22, 50, soft=12), neck), _SKIN_SHADE, 0.55)
    brush.paint(body, _inside(brush.oval(238, 428, 22, 12, soft=8), neck), _SKIN_LIGHT, 0.6)
    for bone in ([(262, 440), (284, 430), (308, 424)], [(250, 440), (228, 430), (204, 424)]):
        brush.paint(body, _inside(brush.stroke(bone, (1, 3, 1), soft=2), neck), _SKIN_SHADE, 0.45)

    collar: _Points = [(190, 414), (214, 440), (256, 454), (298, 440), (322, 414)]
    brush.paint(body, brush.stroke(collar, (13, 15, 13)), _CLOTH_DARK)
    brush.paint(body, brush.stroke([(x, y + 1.0) for x, y in collar], (9, 11, 9)), _CLOTH)
    brush.paint(
        body, brush.stroke([(x, y - 2.5) for x, y in collar], (2, 3, 2), soft=1), _CLOTH_LIGHT, 0.7
    )
    return body


_FACE_RIGHT: Final[_Points] = [
    (256, 104), (306, 116), (340, 156), (347, 208), (341, 262), (325, 312), (296, 351), (256, 368),
]  # fmt: skip
_FACE: Final[_Points] = [*_FACE_RIGHT, *_mirror(_FACE_RIGHT[1:-1][::-1])]


def paint_hair_behind(brush: Brush) -> Image.Image:
    """The hair that the face and the neck hide in part."""
    hair = brush.layer()
    right: _Points = [
        (256, 58), (316, 66), (362, 104), (380, 168), (382, 236), (388, 300),
        (384, 356), (366, 404), (330, 422), (300, 424), (256, 420),
    ]  # fmt: skip
    mask = brush.shape([*right, *_mirror(right[1:-1][::-1])])
    brush.paint(hair, mask, _HAIR_DARK)
    for x0, x1, opacity in ((146, 140, 0.8), (366, 374, 0.65)):
        lock: _Points = [(x0, 170), (x1 - 4, 250), (x1 + 3, 320), (x0 + 2, 390)]
        brush.paint(hair, _inside(brush.stroke(lock, (10, 26, 12), soft=8), mask), _HAIR, opacity)
    for lock, opacity in (
        ([(150, 150), (138, 220), (140, 300), (136, 360)], 0.5),
        ([(364, 150), (374, 220), (370, 300), (376, 360)], 0.35),
    ):
        brush.paint(
            hair, _inside(brush.stroke(lock, (2, 7, 2), soft=2.5), mask), _HAIR_LIGHT, opacity
        )
    return hair


def paint_ears(brush: Brush, head: Image.Image) -> None:
    """Both ears; the skin and the hair are painted over them."""
    for flip in (False, True):
        outer: _Points = [(346, 212), (360, 206), (366, 222), (360, 250), (348, 262), (340, 240)]
        inner: _Points = [(350, 220), (358, 218), (358, 238), (351, 250)]
        if flip:
            outer, inner = _mirror(outer), _mirror(inner)
        brush.paint(head, brush.shape(outer), _SKIN)
        brush.paint(head, brush.stroke(inner, (2, 3.5, 2), soft=1.5), _SKIN_SHADE, 0.9)


def paint_skin(brush: Brush, head: Image.Image) -> None:
    """The skin with its shading, and the nose."""
    face = brush.shape(_FACE)
    brush.paint(head, face, _SKIN)
    rim = _outside(face, brush.oval(248, 226, 80, 124, soft=20))
    brush.paint(head, _inside(rim, face), _SKIN_SHADE, 0.62)
    brush.paint(head, _inside(brush.oval(336, 250, 26, 96, soft=20), face), _SKIN_SHADE, 0.5)
    brush.paint(head, _inside(brush.oval(256, 122, 84, 24, soft=14), face), _SKIN_SHADE, 0.5)
    brush.paint(head, _inside(brush.oval(240, 168, 46, 22, soft=18), face), _SKIN_LIGHT, 0.8)
    brush.paint(head, _inside(brush.oval(252, 346, 22, 12, soft=9), face), _SKIN_LIGHT, 0.6)
    for cheek, blush, light in ((203.0, 0.46, 0.75), (309.0, 0.46, 0.5)):
        brush.paint(head, _inside(brush.oval(cheek, 276, 27, 18, soft=12), face), _BLUSH, blush)
        brush.paint(head, _inside(brush.oval(cheek, 256, 18, 9, soft=7), face), _SKIN_LIGHT, light)
    # Eye sockets, a shade darker than the cheeks.
    for x in (215, 297):
        brush.paint(head, brush.oval(x, 212, 31, 19, soft=9), _SKIN_SHADE, 0.36)

    brush.paint(
        head, brush.stroke([(268, 206), (270, 240), (276, 266)], (4, 9, 9), soft=6),
        _SKIN_SHADE, 0.55,
    )  # fmt: skip
    brush.paint(
        head, brush.stroke([(253, 192), (253, 236), (253, 266)], (5, 7, 10), soft=4),
        _SKIN_LIGHT, 0.85,
    )  # fmt: skip
    brush.paint(head, brush.oval(256, 288, 24, 6, soft=5), _SKIN_SHADE, 0.6)
    for wing in ([(238, 268), (233, 277), (239, 286)], [(274, 268), (279, 277), (273, 286)]):
        brush.paint(head, brush.stroke(wing, (1.5, 2.6, 2), soft=1.4), _SKIN_SHADE, 0.95)
    for nostril in (247.5, 264.5):
        brush.paint(head, brush.oval(nostril, 285, 5, 2.4, soft=1.2), (128, 66, 56), 0.8)
    brush.paint(
        head,
        brush.stroke([(241, 287), (256, 291), (271, 287)], (1, 2, 1), soft=1),
        _SKIN_SHADE,
        0.9,
    )
    brush.paint(head, brush.oval(253, 271, 7, 5, soft=3), (255, 240, 226), 0.7)
    # The groove between nose and lip, and the folds of a smile.
    brush.paint(head, brush.oval(256, 298, 3.5, 5, soft=2.5), _SKIN_SHADE, 0.35)
    for fold in ([(227, 282), (214, 296), (209, 311)], [(285, 282), (298, 296), (303, 311)]):
        brush.paint(head, brush.stroke(fold, (1, 2.2, 1), soft=2), _SKIN_SHADE, 0.42)


def paint_brows(brush: Brush, head: Image.Image) -> None:
    """Both eyebrows."""
    for brow in (
        [(186, 199), (201, 190), (219, 188), (238, 195)],
        [(326, 199), (311, 190), (293, 188), (274, 195)],
    ):
        brush.paint(head, brush.stroke(brow, (1.5, 6.5, 5), soft=0.8), _BROW, 0.85)
        brush.paint(
            head, brush.stroke([(x, y + 1) for x, y in brow], (1, 3, 3), soft=1), _HAIR_DARK, 0.5
        )


def paint_hair_front(brush: Brush, head: Image.Image) -> None:
    """Hair over the forehead, parted on the side, and the strands beside the face."""
    left: _Points = [
        (286, 92), (262, 118), (222, 144), (184, 162), (170, 196), (166, 236), (160, 290),
        (166, 340), (158, 386), (136, 392), (126, 330), (130, 250), (128, 180), (148, 112),
        (196, 72), (256, 56), (296, 66),
    ]  # fmt: skip
    right: _Points = [
        (286, 90), (310, 116), (334, 146), (345, 190), (347, 240), (352, 292), (346, 340),
        (354, 386), (376, 390), (386, 330), (382, 250), (384, 180), (366, 116), (330, 76),
        (288, 62), (270, 66),
    ]  # fmt: skip
    shadow = brush.shape([(x + 1, y + 6) for x, y in left], soft=5)
    face = brush.shape(_FACE)
    brush.paint(head, _inside(shadow, face), _SKIN_SHADE, 0.65)
    shadow = brush.shape([(x - 2, y + 5) for x, y in right], soft=5)
    brush.paint(head, _inside(shadow, face), _SKIN_SHADE, 0.6)
    for outline, strands in (
        (
            left,
            (
                ([(280, 84), (236, 108), (178, 138), (150, 200)], 9, _HAIR_LIGHT, 0.6),
                ([(270, 78), (214, 96), (164, 132), (142, 200)], 7, _HAIR_LIGHT, 0.5),
                ([(282, 92), (244, 122), (196, 146), (164, 176)], 4, _HAIR_LIGHT, 0.35),
                ([(262, 66), (196, 84), (150, 128), (134, 200)], 5, _HAIR_DARK, 0.55),
                ([(150, 200), (146, 260), (144, 320), (150, 380)], 5, _HAIR_LIGHT, 0.4),
                ([(160, 210), (156, 270), (152, 320), (156, 380)], 5, _HAIR_DARK, 0.55),
                ([(138, 210), (134, 270), (132, 320), (140, 380)], 5, _HAIR_DARK, 0.45),
            ),
        ),
        (
            right,
            (
                ([(292, 82), (330, 108), (354, 150), (362, 200)], 8, _HAIR_LIGHT, 0.5),
                ([(290, 74), (340, 96), (368, 144), (374, 200)], 5, _HAIR_DARK, 0.5),
                ([(290, 92), (322, 124), (346, 160), (352, 200)], 4, _HAIR_DARK, 0.5),
                ([(362, 200), (366, 260), (368, 320), (362, 380)], 5, _HAIR_LIGHT, 0.32),
                ([(354, 210), (358, 270), (356, 320), (360, 380)], 5, _HAIR_DARK, 0.55),
            ),
        ),
    ):
        mask = brush.shape(outline)
        brush.paint(head, mask, _HAIR)
        for curve, width, colour, opacity in strands:
            stroke = brush.stroke(curve, (1, width, 1.5), soft=width / 3)
            brush.paint(head, _inside(stroke, mask), colour, opacity)


def paint_eyes(brush: Brush, head: Image.Image, openness: float) -> None:
    """Both eyes with their lids, from shut (0) to open (1)."""
    for x, side in ((216.0, -1.0), (296.0, 1.0)):
        _paint_eye(brush, head, x, 221.0, side, openness)


def _paint_eye(
    brush: Brush, head: Image.Image, x: float, y: float, side: float, openness: float
) -> None:
    """One eye; `side` is -1 for the one on the left of the picture, 1 for the other."""
    inner, outer = (x - side * 22, y + 4.5), (x + side * 25.5, y - 1.5)
    lower: _Points = [
        inner, (x - side * 9, y + 8), (x + side * 5, y + 9), (x + side * 17, y + 5.5), outer,
    ]  # fmt: skip
    # A shut lid rests on the lower lash line; an open one arches above it.
    wide: _Points = [
        inner, (x - side * 12, y - 8.5), (x + side * 2, y - 13.5), (x + side * 17, y - 9), outer,
    ]  # fmt: skip
    upper = [
        (ax + (bx - ax) * (1 - openness), ay + (by + 0.5 - ay) * (1 - openness))
        for (ax, ay), (bx, by) in zip(wide, lower, strict=True)
    ]
    top, bottom = _smooth(upper, closed=False), _smooth(lower, closed=False)
    if openness > 0.0:
        ball = brush.shape([*top, *bottom[::-1]], closed=False)
        brush.paint(head, ball, (250, 247, 243))
        brush.paint(
            head, _inside(brush.oval(x, y - 13, 26, 9, soft=4), ball), (176, 160, 158), 0.75
        )
        brush.paint(head, _inside(brush.oval(*inner, 5, 4, soft=2), ball), (226, 160, 148), 0.8)
        iris = brush.oval(x, y - 1.5, 12.2, 12.2, soft=0.5)
        brush.paint(head, _inside(iris, ball), _IRIS_DARK)
        brush.paint(head, _inside(brush.oval(x, y - 1, 10.4, 10.4, soft=1), ball), _IRIS)
        brush.paint(
            head, _inside(brush.oval(x, y + 3.5, 6.5, 4.5, soft=2), ball), (156, 186, 140), 0.8
        )
        brush.paint(head, _inside(brush.oval(x, y - 1.5, 5, 5, soft=0.4), ball), (22, 18, 20))
        brush.paint(head, _inside(brush.oval(x, y - 10, 13, 5, soft=2.5), ball), (30, 24, 24), 0.5)
        brush.paint(head, _inside(brush.oval(x - 4, y - 5.5, 3, 3), ball), (255, 255, 255))
        brush.paint(
            head, _inside(brush.oval(x + 4.5, y + 3, 1.6, 1.6), ball), (255, 255, 255), 0.75
        )
    lid = [(lx, ly - 5.5 - 1.5 * (1 - openness)) for lx, ly in upper[1:]]
    brush.paint(head, brush.stroke(lid, (1, 2, 1), soft=1), _SKIN_SHADE, 0.95)
    brush.paint(head, brush.stroke(lower[1:], (0.6, 1.1, 1.4), soft=0.7), _LASH, 0.45)
    brush.paint(head, brush.stroke(upper, (1.6, 3.8, 3.4), soft=0.4), _LASH)
    tip = upper[-1]
    for k in range(3):
        root = upper[-1 - (k > 1)] if k > 1 else (tip[0] - side * 3 * k, tip[1] - 1.2 * k)
        curl: _Points = [root, (root[0] + side * 3, root[1] - 1), (root[0] + side * 6, root[1] - 4)]
        brush.paint(head, brush.stroke(curl, (2.2, 1.4, 0.4)), _LASH)


def paint_mouth(brush: Brush, head: Image.Image, openness: float) -> None:
    """Lips that smile when closed; opened, the lower one falls and teeth and tongue show."""
    x, y = 256.0, 321.0
    half = 36.5 - 4.5 * openness
    corner = y - 8.5 + 5.5 * openness
    lift = -1.5 + 5.0 * openness
    drop = 2.5 + 19.5 * openness
    rim_top: _Points = [
        (x - half, corner), (x - 18, y - lift - 1.0), (x, y - lift + 1.0),
        (x + 18, y - lift - 1.0), (x + half, corner),
    ]  # fmt: skip
    rim_bottom: _Points = [
        (x - half, corner), (x - 19, y + drop * 0.78 - 0.6), (x, y + drop + 1.0),
        (x + 19, y + drop * 0.78 - 0.6), (x + half, corner),
    ]  # fmt: skip
    over: _Points = [
        (x - half - 1.5, corner - 0.5), (x - 20, y - lift - 7.0), (x - 7.5, y - lift - 9.5),
        (x, y - lift - 7.0), (x + 7.5, y - lift - 9.5), (x + 20, y - lift - 7.0),
        (x + half + 1.5, corner - 0.5),
    ]  # fmt: skip
    under: _Points = [
        (x - half - 1.5, corner - 0.5), (x - 19, y + drop * 0.85 + 7.0), (x, y + drop + 11.0),
        (x + 19, y + drop * 0.85 + 7.0), (x + half + 1.5, corner - 0.5),
    ]  # fmt: skip
    top, bottom = _smooth(rim_top, closed=False), _smooth(rim_bottom, closed=False)
    brush.paint(head, brush.oval(x, y + drop + 14.0, 19, 4, soft=3.5), _SKIN_SHADE, 0.55)
    lower = brush.shape([*top, *_smooth(under, closed=False)[::-1]], closed=False)
    brush.paint(head, lower, _LIP)
    brush.paint(
        head, _inside(brush.oval(x - 2, y + drop + 6.0, 13, 3, soft=2), lower), _LIP_LIGHT, 0.9
    )
    upper = brush.shape([*_smooth(over, closed=False), *top[::-1]], closed=False)
    brush.paint(head, upper, _LIP_DARK, 0.92)
    brush.paint(
        head, _inside(brush.oval(x - 4, y - lift - 7.5, 12, 2.4, soft=1.6), upper), _LIP, 0.9
    )
    hole = brush.shape([*top, *bottom[::-1]], closed=False)
    brush.paint(head, hole, (84, 26, 32))
    if openness > 0.0:
        brush.paint(
            head, _inside(brush.oval(x, y + drop + 2, 20, 9, soft=2.5), hole), (198, 92, 92), 0.9
        )
        teeth: _Points = [
            (x - half * 0.86, y - lift - 2), (x - half * 0.74, y - lift + 3.0 + 3.0 * openness),
            (x, y - lift + 6.0 + 4.5 * openness),
            (x + half * 0.74, y - lift + 3.0 + 3.0 * openness),
            (x + half * 0.86, y - lift - 2),
        ]  # fmt: skip
        row = brush.shape([*_smooth(teeth, closed=False), (x, y - lift - 8)], closed=False)
        brush.paint(head, _inside(row, hole), (252, 249, 243))
        brush.paint(
            head, _inside(brush.stroke(rim_top, (3, 5, 3), soft=1.6), hole), (120, 60, 60), 0.6
        )
    for side in (-1, 1):
        cx = x + side * (half + 2)
        brush.paint(head, brush.oval(cx, corner - 0.5, 3.2, 3.0, soft=1.8), (150, 80, 70), 0.55)
