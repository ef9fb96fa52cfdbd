"""Taking licences out of texts that other libraries wrote: their log lines and their errors."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["redact"]

_LICENSE_IN_URL: Final = re.compile(r"((?:license|licence)=)[^&\s]+", re.IGNORECASE)
"""Up to the next parameter or white space: a licence that was not encoded may hold quotes."""


def redact(text: str) -> str:
    """The text with ``***`` in place of every licence in a URL's query."""
    return _LICENSE_IN_URL.sub(r"\1***", text)
