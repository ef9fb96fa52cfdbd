"""A loudspeaker and a microphone for a session, on either loop: ``pip install 'navtalk[audio]'``.

PortAudio calls back on a thread of its own. What is shared with it is a buffer under a lock; no
loop is known here, and waiting is anyio's. There is no echo canceller: see
:class:`~navtalk_proto.playout.HalfDuplexGate`.
"""

from __future__ import annotations

from navtalk_sound.device_list import SoundDevice, SoundDevices, sound_devices
from navtalk_sound.devices import Microphone, MicrophoneStats, Speaker, SpeakerStats
from navtalk_sound.playout_buffer import PlayoutBuffer
from navtalk_sound.portaudio import SoundDeviceError
from navtalk_sound.talk_aloud import talk_aloud

__all__ = [
    "Microphone",
    "MicrophoneStats",
    "PlayoutBuffer",
    "SoundDevice",
    "SoundDeviceError",
    "SoundDevices",
    "Speaker",
    "SpeakerStats",
    "sound_devices",
    "talk_aloud",
]
