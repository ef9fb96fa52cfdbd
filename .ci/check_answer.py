"""Check what the demo wrote: ``check_answer.py answer.mkv answer.png``."""

from __future__ import annotations

import sys

import av
from PIL import Image

recording, still = sys.argv[1:]
with av.open(recording) as file:
    kinds = sorted(stream.type for stream in file.streams)
    seconds = (file.duration or 0) / av.time_base
    pictures = sum(1 for _ in file.decode(video=0))
with Image.open(still) as image:
    size = image.size
    colours = len(image.convert("RGB").getcolors(maxcolors=1 << 24) or ())
print(f"{recording}: {kinds}, {seconds:.1f} s, {pictures} pictures")
print(f"{still}: {size}, {colours} colours")
assert kinds == ["audio", "video"], kinds
assert seconds >= 3.0, seconds
assert pictures >= 25, pictures
assert colours > 1000, "the still is not a drawn face"
