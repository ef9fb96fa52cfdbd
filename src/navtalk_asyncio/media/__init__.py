"""The media engine: aiortc behind the core's media commands.

Importing this package imports neither aiortc nor PyAV; the first use of a name that needs them
does, and says what to install when they are missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from navtalk_asyncio.media.interface import (
    EncodedFrame,
    EncodedSource,
    Engine,
    EngineCallbacks,
    EngineFactory,
    TrackCounters,
)

if TYPE_CHECKING:
    from navtalk_asyncio.media.aiortc_engine import AiortcEngine
    from navtalk_asyncio.media.recorder import Recorder

__all__ = [
    "AiortcEngine",
    "EncodedFrame",
    "EncodedSource",
    "Engine",
    "EngineCallbacks",
    "EngineFactory",
    "Recorder",
    "TrackCounters",
]

_LAZY = {
    "AiortcEngine": "navtalk_asyncio.media.aiortc_engine",
    "Recorder": "navtalk_asyncio.media.recorder",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
