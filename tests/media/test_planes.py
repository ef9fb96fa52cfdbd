"""Pictures as numpy views."""

from __future__ import annotations

import gc

import av
import numpy as np
import pytest

from navtalk_asyncio.media.planes import yuv_planes


def test_planes_are_views_of_the_frames_memory() -> None:
    """60 x 35: rows are padded, and chroma is rounded up."""
    frame = av.VideoFrame(60, 35, "yuv420p")
    for plane, value in zip(frame.planes, (10, 20, 30), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    planes = yuv_planes(frame)
    assert [plane.shape for plane in planes] == [(35, 60), (18, 30), (18, 30)]
    assert [int(plane.max()) for plane in planes] == [10, 20, 30]
    assert planes.y.strides == (frame.planes[0].line_size, 1)
    frame.planes[0].update(bytes([99]) * frame.planes[0].buffer_size)
    assert int(planes.y[34, 59]) == 99
    with pytest.raises(ValueError, match="read-only"):
        planes.y[0, 0] = 1
    del frame
    gc.collect()
    assert np.array_equal(planes.u, np.full((18, 30), 20, np.uint8))


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="rgb24"):
        yuv_planes(av.VideoFrame(16, 16, "rgb24"))
