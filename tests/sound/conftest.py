"""The sound server that the devices are of."""

from __future__ import annotations

from null_sink import sound_server

__all__ = ["sound_server"]
