"""The planes of a decoded picture as numpy arrays, without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import av
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Planes", "yuv_planes"]


class Planes(NamedTuple):
    """A yuv420p picture of `h` rows and `w` columns, as uint8 views of the decoder's memory.

    ``y`` has shape ``(h, w)``; ``u`` and ``v`` have ``((h + 1) // 2, (w + 1) // 2)``. Rows are
    further apart than they are long (``y.strides[0]`` is FFmpeg's line size), so a view is not
    contiguous. Each keeps its frame's memory alive. Read them; another reader has the same frame.
    """

    y: NDArray[np.uint8]
    u: NDArray[np.uint8]
    v: NDArray[np.uint8]


def yuv_planes(frame: av.VideoFrame) -> Planes:
    """Views of a picture as the decoders give it, in microseconds; nothing is converted.

    For what needs no colours, or makes them itself. ``frame.to_ndarray(format="rgb24")`` converts,
    and copies. Raises ValueError for another pixel format than yuv420p and yuvj420p, ImportError
    without numpy.
    """
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        raise ValueError(f"a {frame.format.name} picture has no planes of yuv420p")
    return Planes(*(_view(plane) for plane in frame.planes))


def _view(plane: Any) -> NDArray[np.uint8]:
    import numpy

    rows = numpy.frombuffer(plane, numpy.uint8)[: plane.line_size * plane.height]
    view: NDArray[np.uint8] = rows.reshape(plane.height, plane.line_size)[:, : plane.width]
    view.flags.writeable = False
    return view
