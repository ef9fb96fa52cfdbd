"""A file that one recording of this process writes, and no other."""

from __future__ import annotations

import os
import threading
from typing import Final

from navtalk_asyncio.media.recording_error import RecordingError

__all__ = ["ClaimedFile"]

_claimed: Final[set[str]] = set()
"""Links resolved."""
_claimed_lock: Final = threading.Lock()


class ClaimedFile:
    """Claims a file, and sees whether it can be written; what it holds is not touched yet.

    Raises OSError, and RecordingError where another recording of this process writes it. To be
    given back with :meth:`release`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._real_path = os.path.realpath(path)
        with _claimed_lock:
            if self._real_path in _claimed:
                raise RecordingError("another recording writes this file now")
            _claimed.add(self._real_path)
        try:
            created = not os.path.exists(self._real_path)
            with open(self._real_path, "ab"):
                self._created = created
        except BaseException:
            self.release()
            raise

    def remove_if_ours(self) -> None:
        """Take back a file that was not there before."""
        if self._created:
            os.unlink(self._real_path)

    def release(self) -> None:
        """Others may write it again."""
        with _claimed_lock:
            _claimed.discard(self._real_path)
