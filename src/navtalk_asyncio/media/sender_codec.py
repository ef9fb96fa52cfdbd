"""A sender that follows a renegotiation to another codec, which aiortc's does not.

aiortc starts a sender with the first codec of the first exchange and ignores what later ones agree
on. The far end may have dropped the old codec by then: it is to get the new one from the next frame
on. The stream stays the same: SSRC, sequence numbers and timestamps go on (RFC 3264 section 8.3.2).
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, runtime_checkable

from aiortc import RTCRtpSender
from aiortc.codecs import is_rtx
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpSendParameters

from navtalk_asyncio.media.aiortc_internals import SentTrack
from navtalk_asyncio.media.private_names import works

__all__ = ["ControlledTrack", "SenderControl", "follow_codec"]


class SenderControl:
    """What a track may know and want of the sender that it is read by."""

    def __init__(self, sender: RTCRtpSender) -> None:
        self._sender: Any = sender
        self.codec: str = ""
        """What is sent from this frame on, as the rtpmap spells it."""

    def take_keyframe_request(self) -> bool:
        """Whether the far end asked for a keyframe (PLI or FIR) since last asked. Once taken, it is
        the track's to send one: a frame that is encoded is none by itself."""
        asked: bool = self._sender._RTCRtpSender__force_keyframe
        self._sender._RTCRtpSender__force_keyframe = False
        return asked

    def encode_keyframe(self) -> None:
        """Make the frame that is being given, or the next one that is to be encoded, a keyframe."""
        self._sender._RTCRtpSender__force_keyframe = True


@runtime_checkable
class ControlledTrack(Protocol):
    """A track that gives frames or encoded packets as it sees fit.

    Between the two, a packet has to be a keyframe, and a frame has to be made one.
    """

    control: SenderControl | None
    """Set before each frame is asked for; None until then, and where aiortc has changed."""

    def leaving(self) -> None:
        """What was given last is encoded, and leaves now."""
        ...


def follow_codec(sender: RTCRtpSender) -> None:
    """Make a sender that has not started yet follow its codec; again for the same one: nothing.

    Without the private names that this takes, a sender stays with its first codec.
    """
    if works("sending") and not isinstance(sender.__dict__.get("send"), _FollowingSend):
        _FollowingSend(sender).install()


class _FollowingSend:
    """Stands in for one sender's ``send()``, which aiortc calls after every exchange."""

    def __init__(self, sender: RTCRtpSender) -> None:
        self._sender: Any = sender
        self._send = sender.send
        self._next_frame = self._sender._next_encoded_frame
        self._started = False
        self._agreed: RTCRtpSendParameters | None = None
        self._control = SenderControl(sender)

    def install(self) -> None:
        self._sender.send = self
        self._sender._next_encoded_frame = self._next

    async def __call__(self, parameters: RTCRtpSendParameters) -> None:
        if self._started:
            self._agreed = parameters
        else:
            self._started = True
            parameters = copy.copy(parameters)
            # The object that the running sender reads its codec from: nobody else is to have it.
            parameters.codecs = [copy.copy(parameters.codecs[0]), *parameters.codecs[1:]]
        await self._send(parameters)

    async def _next(self, codec: RTCRtpCodecParameters) -> Any:
        # Between two frames, so that none is encoded in one codec and sent as the other.
        if self._agreed is not None:
            self._change(codec, self._agreed)
            self._agreed = None
        track = self._sender.track
        source = track.source if isinstance(track, SentTrack) else track
        if not isinstance(source, ControlledTrack):
            return await self._next_frame(codec)
        self._control.codec = codec.name
        source.control = self._control
        frame = await self._next_frame(codec)
        source.leaving()
        return frame

    def _change(self, running: RTCRtpCodecParameters, parameters: RTCRtpSendParameters) -> None:
        agreed = parameters.codecs[0]
        if running == agreed:
            return
        if running.mimeType.lower() != agreed.mimeType.lower():
            self._sender._RTCRtpSender__encoder = None
        running.__dict__.update(copy.copy(agreed).__dict__)
        self._sender._RTCRtpSender__rtx_payload_type = next(
            (
                codec.payloadType
                for codec in parameters.codecs
                if is_rtx(codec) and codec.parameters["apt"] == agreed.payloadType
            ),
            None,
        )
