"""How a media command fails."""

from __future__ import annotations

__all__ = ["CommandError"]


class CommandError(Exception):
    """A command that cannot be carried out; the text is its reason."""
