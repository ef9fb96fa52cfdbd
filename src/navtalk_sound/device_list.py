"""Which loudspeakers and microphones there are."""

from __future__ import annotations

from attrs import frozen

from navtalk_sound.portaudio import SoundDeviceError, load_portaudio

__all__ = ["SoundDevice", "SoundDevices", "sound_devices"]


@frozen(kw_only=True)
class SoundDevice:
    """One direction of a device of PortAudio's; what plays and records is listed twice."""

    number: int
    """What Speaker and Microphone take; others may have it after a device was plugged in."""
    name: str
    interface: str
    """The system's sound interface that it is reached by: ALSA, Core Audio, Windows WASAPI."""
    channels: int
    """At most."""
    rate: int
    """Hz, the device's own; others are resampled to it."""
    default: bool
    """Whether it is taken where none is named."""


@frozen(kw_only=True)
class SoundDevices:
    """What can be played on and what can be listened to, in PortAudio's order."""

    speakers: tuple[SoundDevice, ...]
    microphones: tuple[SoundDevice, ...]


def sound_devices() -> SoundDevices:
    """List the devices. Both lists are empty on a machine without sound.

    Raises SoundDeviceError where PortAudio cannot tell, ImportError without ``navtalk[audio]``.
    """
    portaudio = load_portaudio()
    try:
        found = list(portaudio.query_devices())
        interfaces = [one["name"] for one in portaudio.query_hostapis()]
    except portaudio.PortAudioError as error:
        raise SoundDeviceError(f"the devices cannot be listed: {error}") from error
    listed = []
    for direction, default in zip(("input", "output"), portaudio.default.device, strict=True):
        listed.append(
            tuple(
                SoundDevice(
                    number=one["index"],
                    name=one["name"],
                    interface=interfaces[one["hostapi"]],
                    channels=one[f"max_{direction}_channels"],
                    rate=round(one["default_samplerate"]),
                    default=one["index"] == default,
                )
                for one in found
                if one[f"max_{direction}_channels"]
            )
        )
    microphones, speakers = listed
    return SoundDevices(speakers=speakers, microphones=microphones)
