"""Decryption of received packets (SRTP, RFC 3711), with less around it than pylibsrtp has.

pylibsrtp allocates a length, copies the packet into a buffer, and copies all of it back out: half
of the time that decrypting a packet takes. The same libsrtp is called here with one length and one
buffer for a session, and no more is copied out than is asked for.

Uses private names of pylibsrtp: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pylibsrtp

from navtalk_asyncio.media.private_names import works

__all__ = ["Decrypt", "decrypt_with"]

CAPACITY: Final = 2048
"""Bytes of a packet; pylibsrtp takes 1500."""

Decrypt: TypeAlias = Callable[[bytes, int], bytes]
"""Gives what is behind so many bytes of a decrypted packet, the header's; all of them for 0.

Raises pylibsrtp.Error for a packet that is not authentic, or was seen before, and ValueError for
one that is too long.
"""


def decrypt_with(session: pylibsrtp.Session) -> Decrypt:
    """What decrypts the packets of a session, one call at a time."""
    if not works("decrypting"):
        return lambda packet, start: session.unprotect(packet)[start:]
    private: Any = session
    binding: Any = pylibsrtp
    # Each is looked up for every packet otherwise. The session's owner frees what it points to.
    owner, context = private._srtp, private._srtp[0]
    ffi, unprotect, errors = binding.ffi, binding.lib.srtp_unprotect, binding.ERRORS
    memory = ffi.new("char[]", CAPACITY)
    buffer = ffi.buffer(memory)
    length = ffi.new("int *")

    def decrypt(packet: bytes, start: int, _owner: object = owner) -> bytes:
        size = len(packet)
        if size > CAPACITY:
            raise ValueError("packet is too long")
        buffer[0:size] = packet
        length[0] = size
        if status := unprotect(context, memory, length):
            raise pylibsrtp.Error(errors[status])
        decrypted: bytes = buffer[start : length[0]]
        return decrypted

    return decrypt
