"""The numbers of codecs and header extensions, kept for the life of a peer connection.

A payload type must not change its codec while the session lasts (RFC 3264 section 8.3.2), also not
from one bundled m-line to another (RFC 8843 section 9.1); the same goes for the ids of header
extensions (RFC 8285 section 5). aiortc answers with the far end's numbers, and offers with its own:
after it has answered a browser its next offer calls Opus what was VP8. Chromium's renderer crashes
on that.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Final

from aiortc.codecs import is_rtx
from aiortc.rtcpeerconnection import is_codec_compatible
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.rtp import DYNAMIC_PAYLOAD_TYPES
from aiortc.sdp import SessionDescription

__all__ = ["PayloadTypes"]

_EXTENSION_IDS: Final = range(1, 15)
"""Those of one-byte headers (RFC 8285 section 4.2)."""

_RTPMAP: Final = re.compile(r"^a=rtpmap:(\d{1,3}) ", re.MULTILINE)
_EXTMAP: Final = re.compile(r"^a=extmap:(\d{1,3})(?:/\w+)? (\S+)", re.MULTILINE)


UNREAD: Final = 8
"""Descriptions that may wait to be read: two offers with their answers are more than is usual."""


class PayloadTypes:
    """What the numbers of one peer connection stand for. At most one entry for each number.

    Descriptions are read when an offer is made: an answer does not wait for that.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[str, str]] = []
        self._codecs: dict[str, dict[int, RTCRtpCodecParameters]] = {"audio": {}, "video": {}}
        """By media kind and payload type."""
        self._taken: set[int] = set()
        self._extensions: dict[str, int] = {}

    def saw(self, sdp: str, *, original: str | None = None) -> None:
        """A description was applied, of either side; `original` as it came, where it was changed.

        Codecs that were taken out of it have their numbers too.
        """
        self._unread.append((sdp, original or ""))
        if len(self._unread) > UNREAD:
            self._read()

    def _read(self) -> None:
        for sdp, original in self._unread:
            for section in SessionDescription.parse(sdp).media:
                if section.kind in self._codecs:
                    for codec in section.rtp.codecs:
                        self._codecs[section.kind].setdefault(_number(codec), codec)
            for text in (sdp, original):
                self._taken.update(int(number) for number in _RTPMAP.findall(text))
                for number, uri in _EXTMAP.findall(text):
                    self._extensions.setdefault(uri, int(number))
        self._unread.clear()

    def keep(self, sdp: str) -> str:
        """An offer of aiortc's with the numbers that its codecs and extensions have already.

        What is new gets a number that nothing had; where none is left, it is not offered.
        """
        self._read()
        if not self._taken:
            return sdp
        description = SessionDescription.parse(sdp)
        given = dict(self._extensions)
        made = self._taken.copy()
        for section in description.media:
            if section.kind not in self._codecs:
                continue
            section.rtp.codecs = self._renumbered(section.kind, section.rtp.codecs, made)
            section.fmt = [codec.payloadType for codec in section.rtp.codecs]
            section.rtp.headerExtensions = [
                RTCRtpHeaderExtensionParameters(id=number, uri=extension.uri)
                for extension in section.rtp.headerExtensions
                if (number := _extension_id(extension.uri, extension.id, given)) is not None
            ]
        return str(description)

    def _renumbered(
        self, kind: str, offered: Sequence[RTCRtpCodecParameters], made: set[int]
    ) -> list[RTCRtpCodecParameters]:
        kept: list[RTCRtpCodecParameters] = []
        numbers: dict[int, int] = {}
        for one in offered:
            codec = copy.deepcopy(one)
            if is_rtx(codec):
                base = numbers.get(int(codec.parameters["apt"] or 0))
                if base is None:
                    continue
                codec.parameters["apt"] = base
            own = _number(codec)
            number = self._known(kind, codec, used=set(map(_number, kept)))
            if number is None and own in DYNAMIC_PAYLOAD_TYPES:
                number = _free(own, DYNAMIC_PAYLOAD_TYPES, made)
                if number is None:
                    continue
                made.add(number)
            codec.payloadType = numbers[own] = own if number is None else number
            kept.append(codec)
        return kept

    def _known(self, kind: str, codec: RTCRtpCodecParameters, *, used: set[int]) -> int | None:
        for number, known in self._codecs[kind].items():
            if number in used or not is_codec_compatible(codec, known):
                continue
            if is_rtx(codec) and known.parameters.get("apt") != codec.parameters["apt"]:
                continue
            return number
        return None


def _number(codec: RTCRtpCodecParameters) -> int:
    assert codec.payloadType is not None, "a codec of a description has a number"
    return codec.payloadType


def _extension_id(uri: str, own: int, given: dict[str, int]) -> int | None:
    number = given.get(uri)
    if number is None:
        number = _free(own, _EXTENSION_IDS, set(given.values()))
        if number is not None:
            given[uri] = number
    return number


def _free(wanted: int, among: Iterable[int], taken: set[int]) -> int | None:
    return next((number for number in (wanted, *among) if number not in taken), None)
