"""A digital human on loopback: the server role with a face, a voice and ears.

``async with emulate() as human`` runs it; ``human.endpoint()`` is where to connect. It is what the
demo talks to and what applications are tested against, without an account and without a network.
"""

from __future__ import annotations

from navtalk_asyncio.emulator.avatars import Avatar, AvatarDirectory
from navtalk_asyncio.emulator.brain import (
    Brain,
    Call,
    CallResult,
    Conversation,
    EchoBrain,
    Reply,
    Said,
)
from navtalk_asyncio.emulator.calls import Tool
from navtalk_asyncio.emulator.emulator import Emulator, emulate
from navtalk_asyncio.emulator.faults import FaultError
from navtalk_asyncio.emulator.pictures import Picture
from navtalk_asyncio.emulator.script import (
    BrainLoadError,
    ScriptedBrain,
    ScriptError,
    load_brain,
)
from navtalk_asyncio.emulator.visit import Visit, VisitStatus

__all__ = [
    "Avatar",
    "AvatarDirectory",
    "Brain",
    "BrainLoadError",
    "Call",
    "CallResult",
    "Conversation",
    "EchoBrain",
    "Emulator",
    "FaultError",
    "Picture",
    "Reply",
    "Said",
    "ScriptError",
    "ScriptedBrain",
    "Tool",
    "Visit",
    "VisitStatus",
    "emulate",
    "load_brain",
]
