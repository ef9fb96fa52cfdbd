"""A digital human on loopback: the server role with a face, a voice and ears.

``async with emulate() as human`` runs it; ``human.endpoint()`` is where to connect. It is what the
demo talks to and what applications are tested against, without an account and without a network.
"""

from __future__ import annotations

from navtalk_asyncio.emulator.avatars import Avatar, AvatarDirectory
from navtalk_asyncio.emulator.brain import Brain, EchoBrain, Reply
from navtalk_asyncio.emulator.emulator import Emulator, emulate

__all__ = ["Avatar", "AvatarDirectory", "Brain", "EchoBrain", "Emulator", "Reply", "emulate"]
