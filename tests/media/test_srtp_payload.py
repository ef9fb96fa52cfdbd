from __future__ import annotations

import pylibsrtp
import pytest
from pylibsrtp import Policy, Session

from navtalk_asyncio.media import private_names
from navtalk_asyncio.media.srtp_payload import CAPACITY, decrypt_with

pytestmark = pytest.mark.anyio

KEYS = {
    Policy.SRTP_PROFILE_AES128_CM_SHA1_80: bytes(range(30)),
    Policy.SRTP_PROFILE_AEAD_AES_128_GCM: bytes(range(28)),
}
HEADER = b"\x80\x61\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03"


@pytest.fixture(params=sorted(KEYS))
def profile(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["ours", "pylibsrtp's"], autouse=True)
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = {"decrypting": request.param == "ours" and private_names.works("decrypting")}
    monkeypatch.setattr(private_names, "_verdicts", verdicts)


def session(profile: int, ssrc_type: int) -> Session:
    return Session(Policy(key=KEYS[profile], ssrc_type=ssrc_type, srtp_profile=profile))


def packet(number: int, payload: bytes) -> bytes:
    return HEADER[:2] + number.to_bytes(2, "big") + HEADER[4:] + payload


async def test_what_comes_behind_the_header_is_what_was_sent(profile: int) -> None:
    sender = session(profile, Policy.SSRC_ANY_OUTBOUND)
    decrypt = decrypt_with(session(profile, Policy.SSRC_ANY_INBOUND))
    sizes = (1, 1200, 0, 3, 1100)
    sent = [packet(number, bytes([number]) * size) for number, size in enumerate(sizes)]
    encrypted = [sender.protect(one) for one in sent]
    # Long and short take turns: nothing of the one before may be left.
    assert [decrypt(one, 12) for one in encrypted[:4]] == [one[12:] for one in sent[:4]]
    assert decrypt(encrypted[4], 0) == sent[4]


async def test_a_packet_is_taken_once_and_a_forged_one_never(profile: int) -> None:
    sender = session(profile, Policy.SSRC_ANY_OUTBOUND)
    decrypt = decrypt_with(session(profile, Policy.SSRC_ANY_INBOUND))
    first, second = (sender.protect(packet(number, b"data")) for number in (1, 2))
    assert decrypt(first, 12) == b"data"
    with pytest.raises(pylibsrtp.Error, match="replay"):
        decrypt(first, 12)
    with pytest.raises(pylibsrtp.Error, match="authentication"):
        decrypt(second[:-1] + bytes([second[-1] ^ 1]), 12)
    with pytest.raises(pylibsrtp.Error):
        decrypt(b"\x80", 12)
    assert decrypt(second, 12) == b"data"


async def test_a_packet_that_does_not_fit_is_refused(profile: int) -> None:
    decrypt = decrypt_with(session(profile, Policy.SSRC_ANY_INBOUND))
    with pytest.raises(ValueError, match="too long"):
        decrypt(bytes(CAPACITY + 1), 12)


async def test_the_session_lives_as_long_as_what_decrypts_with_it(profile: int) -> None:
    sender = session(profile, Policy.SSRC_ANY_OUTBOUND)
    decrypts = [decrypt_with(session(profile, Policy.SSRC_ANY_INBOUND)) for _ in range(50)]
    encrypted = sender.protect(packet(1, b"data"))
    assert {decrypt(encrypted, 12) for decrypt in decrypts} == {b"data"}
