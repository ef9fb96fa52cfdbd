"""What becomes of a recording that cannot be."""

from __future__ import annotations

from navtalk_proto.errors import NavTalkError

__all__ = ["CodecMisfitError", "RecordingError"]


class RecordingError(NavTalkError):
    """A recording could not be begun, or is incomplete.

    The text names the file and why. The cause, if there is one, is FFmpeg's or the disk's error.
    """

    code = "recording"
    hint = "check the disk's room and rights, and that the suffix fits the codecs"


class CodecMisfitError(RecordingError):
    """The call has a codec that the file cannot hold: VP8 in mp4, H.264 in WebM."""

    code = "codec-misfit"
    hint = (
        "the codec is agreed when the session opens: give connect(media=recording_media(path)), "
        "or record into .mkv, which holds both, or encode anew with record(..., transcode=True)"
    )
