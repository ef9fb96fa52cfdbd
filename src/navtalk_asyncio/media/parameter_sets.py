"""H.264's parameter sets (SPS, PPS), where a sender puts them into its description only.

Without them no picture can be decoded, shown elsewhere or recorded. Most senders repeat them in the
stream, before each keyframe. RFC 6184 section 8.1 allows them in the description alone, as
``sprop-parameter-sets`` of the fmtp line: then they are put in front of each keyframe here, so that
nobody behind has to know.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["described_parameter_sets", "has_parameter_sets", "is_idr"]

MAX_BYTES: Final = 4096
"""Of all sets of one payload type: a real one has some forty."""

START_CODE: Final = b"\0\0\0\1"

_IDR, _SPS, _PPS = 5, 7, 8
"""Types of NAL units (ITU-T H.264 table 7-1)."""

_SPROP: Final = re.compile(
    r"^a=fmtp:(\d{1,3}) (?:[^\r\n]*;)?\s*sprop-parameter-sets=([A-Za-z0-9+/=,]+)", re.MULTILINE
)


def described_parameter_sets(sdp: str) -> Mapping[int, bytes]:
    """The parameter sets of each payload type in Annex B form, where there are an SPS and a PPS.

    What cannot be read is left out: its pictures are those of a sender without any.
    """
    found: dict[int, bytes] = {}
    for payload_type, value in _SPROP.findall(sdp):
        try:
            units = [base64.b64decode(one, validate=True) for one in value.split(",") if one]
        except binascii.Error:
            continue
        data = b"".join(START_CODE + unit for unit in units)
        if has_parameter_sets(data) and len(data) <= MAX_BYTES:
            found[int(payload_type)] = data
    return found


def is_idr(data: bytes) -> bool:
    """Whether an access unit, in Annex B form, is a keyframe."""
    return _IDR in _unit_types(data)


def has_parameter_sets(data: bytes) -> bool:
    """Whether data in Annex B form has both an SPS and a PPS, before any picture."""
    types = set()
    for one in _unit_types(data):
        if one in (1, _IDR):
            break
        types.add(one)
    return {_SPS, _PPS} <= types


def _unit_types(data: bytes) -> Iterator[int]:
    start = data.find(b"\0\0\1")
    while start != -1 and start + 3 < len(data):
        yield data[start + 3] & 0x1F
        start = data.find(b"\0\0\1", start + 3)
