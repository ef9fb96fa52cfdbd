"""What ALSA writes to standard error by itself, in the middle of whatever is shown there."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

__all__ = ["no_alsa_messages"]

_LIBRARY: Final = "libasound.so.2"

_Handler = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
)
"""``snd_lib_error_handler_t``: file, line, function, error number, format and its values."""


@contextmanager
def no_alsa_messages() -> Generator[None]:
    """ALSA writes nothing while the block runs; elsewhere than on Linux there is no ALSA.

    It tells of what it has recovered from, as an underrun, and of devices that it was only asked
    about. What matters is raised by PortAudio.
    """
    try:
        alsa = ctypes.CDLL(_LIBRARY)
    except OSError:
        yield
        return
    ignore = _Handler(lambda *told: None)  # Kept alive here: C does not count references.
    alsa.snd_lib_error_set_handler(ignore)
    try:
        yield
    finally:
        alsa.snd_lib_error_set_handler(None)
