"""How late are picture and sound, once a session runs on a clean path?

Run: ``python benchmarks/steady_latency.py`` (4 minutes; a quarter of it for each of ``--rounds``).
Needs ``navtalk[all,bench]``, and Chromium for its column.

How to read it: milliseconds from the moment at which the sender handed a coded picture, or a packet
of sound, to its RTP sender, to the moment at which it is decoded and in the user's hands. The
sender's pictures are coded beforehand, so that its coder has no part in it. Pictures carry a number
and the sound tells its place (`chirp.py`); the first two seconds of a session do not count. A piece
of sound that begins within a packet is as late as if it had been sent in its own time: receivers
that give 10 ms at a time are not charged for the second half of a packet. p50 is the median of a
session, p99 what one in a hundred exceeds; on a shared machine the p99 are rough. The sender is
aiortc without any patch.
"""

from __future__ import annotations

import sys

from answers import Answer, Bar, Options, main, progress
from plots import distributions
from receivers import percentile, receive_one
from sender import running_sender

SECONDS = 10.0

VIDEO_BARS = (Bar(0.25, "stock"), Bar(0.5, "libwebrtc"))
AUDIO_BARS = (Bar(0.4, "stock"),)


def run(options: Options) -> list[Answer]:
    """All answers; draws the distributions."""
    names = ("picture p50", "picture p99", "sound p50", "sound p99", "pictures a second")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    video: dict[str, list[float]] = {}
    audio: dict[str, list[float]] = {}
    seconds = options.seconds(SECONDS)
    with running_sender("--stock") as sender:
        for _ in range(options.times(3)):
            for made in rounds.values():
                made.append({})
            for peer in options.among():
                progress(f"steady latency: {peer}")
                seen, sent = receive_one(
                    peer, sender.url, loop=options.loop, consume="read", seconds=seconds
                )
                pictures, sounds = seen.video_latencies(sent), seen.audio_latencies(sent)
                video.setdefault(peer, []).extend(pictures)
                audio.setdefault(peer, []).extend(sounds)
                rounds["picture p50"][-1][peer] = percentile(pictures, 0.5)
                rounds["picture p99"][-1][peer] = percentile(pictures, 0.99)
                rounds["sound p50"][-1][peer] = percentile(sounds, 0.5)
                rounds["sound p99"][-1][peer] = percentile(sounds, 0.99)
                rounds["pictures a second"][-1][peer] = len(pictures) / (seen.end - seen.begin)
    if options.plots:
        distributions(
            video, "Pictures: sent to delivered, 720p30 VP8", options.plots / "video_latency.png"
        )
        distributions(
            audio, "Sound: sent to delivered, 20 ms Opus", options.plots / "audio_latency.png"
        )
    return [
        Answer("picture p50, sent to delivered, ms", rounds["picture p50"], VIDEO_BARS),
        Answer("picture p99, ms", rounds["picture p99"]),
        Answer("pictures a second", rounds["pictures a second"]),
        Answer("sound p50, sent to delivered, ms", rounds["sound p50"], AUDIO_BARS),
        Answer("sound p99, ms", rounds["sound p99"]),
    ]


if __name__ == "__main__":
    sys.exit(main("sent-to-delivered latency on a clean path", run))
