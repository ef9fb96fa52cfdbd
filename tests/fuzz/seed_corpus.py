"""Invariant: every type of protocol.md section 4 is a seed of the targets that read messages.

Writes seeds for atheris into a folder: ``python tests/fuzz/seed_corpus.py FOLDER``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from grammar import CLIENT_SAMPLES, SAMPLES, SDP
from targets import SEPARATOR, STATES


def seeds() -> dict[str, list[bytes]]:
    """Seeds by target."""
    texts = [json.dumps(sample).encode() for sample in SAMPLES]
    client = {json.dumps(sample).encode() for sample in CLIENT_SAMPLES}
    candidate = b"candidate:1 1 udp 1 192.0.2.1 9 typ host generation 0 ufrag far1"
    return {
        "codec": [(b"\xff" if text in client else b"\x41") + text for text in texts],
        "jsontext": [*texts, b'["\\ud83d\\ude00", 1e16, -0.0, 9007199254740993]'],
        "sdp": [SDP.encode(), SDP.replace("\r\n", "\n").encode()],
        "candidate": [SEPARATOR.join((candidate, b"0", b"0", b"far1")), SEPARATOR * 3],
        "endpoint": [
            b"wss://transfer.navtalk.ai/wss/v2/realtime-chat?license=sk_navtalk_EXAMPLE&name=a+b",
            b"/wss/v2/realtime-chat?license=sk_navtalk_EXAMPLE&avatarId=0123&audioBack=true",
            b"ws://[::1]:80?license=x&name=%ff&model=transparency",
        ],
        "connection": [
            bytes([(STATES.index(state) << 3) | flags])
            + SEPARATOR.join(
                (*texts[at : at + 6], b"\x01", b"\x01", b"\x07\x01", b"\x03", b"\x07\x03")
            )
            for number, state in enumerate(STATES)
            for flags in range(8)
            for at in range(number % 4, len(texts), 24)
        ],
    }


def main() -> None:
    for target, found in seeds().items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in found:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


if __name__ == "__main__":
    main()
