"""PortAudio, loaded where it is first needed, and what is said where it cannot be."""

from __future__ import annotations

from typing import Any, ClassVar

from navtalk_proto.errors import NavTalkError

__all__ = ["SoundDeviceError", "load_portaudio"]


class SoundDeviceError(NavTalkError):
    """A sound device cannot be opened, or PortAudio is not there."""

    code: ClassVar[str] = "sound-device"
    hint: ClassVar[str] = (
        "`navtalk devices` lists the devices; where PortAudio is missing: apt install libportaudio2"
    )


def load_portaudio() -> Any:
    """The module ``sounddevice``.

    Raises ImportError without ``navtalk[audio]``, and SoundDeviceError without PortAudio itself.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise ImportError(
            "sounddevice is not installed: pip install 'navtalk[audio]'", name=error.name
        ) from None
    except OSError as error:  # it looks for the library when it is imported
        raise SoundDeviceError(f"PortAudio cannot be loaded: {error}") from error
    return sounddevice
