"""Where a value comes from: argument, environment, config file, default, in this order.

An option ``--limit`` of ``talk`` is NAVTALK_TALK_LIMIT in the environment and ``limit`` in the
table ``[talk]`` of the config file. What is the same for every command has a shorter name, and
stands before the tables: ``url``, ``avatar``, ``avatar-id`` and ``model``, and the licence, which
is no option of a client, because whoever lists this machine's processes reads arguments.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.config import Dict, Env
from cyclopts.validators import Number
from platformdirs import user_config_path

from navtalk_proto.errors import NavTalkError
from navtalk_proto.secret import Secret
from navtalk_proto.wire.endpoint import Endpoint

__all__ = [
    "CONFIG_VARIABLE",
    "LICENSE_VARIABLE",
    "Avatar",
    "AvatarId",
    "Model",
    "NoAvatarError",
    "NoLicenceError",
    "Port",
    "Seconds",
    "Settings",
    "SettingsError",
    "Trace",
    "Url",
]

LICENSE_VARIABLE: Final = "NAVTALK_LICENSE"
CONFIG_VARIABLE: Final = "NAVTALK_CONFIG"
"""The path of another config file."""

_SHARED: Final = ("url", "avatar", "avatar-id", "model")

Seconds = Annotated[float, Parameter(validator=Number(gt=0))]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
Url = Annotated[str, Parameter(env_var="NAVTALK_URL")]
Avatar = Annotated[str | None, Parameter(env_var="NAVTALK_AVATAR")]
AvatarId = Annotated[str | None, Parameter(env_var="NAVTALK_AVATAR_ID")]
Model = Annotated[str | None, Parameter(env_var="NAVTALK_MODEL")]
Trace = Annotated[
    Path | None,
    Parameter(help="Write what happens to this file, for navtalk trace and navtalk replay."),
]
"""Goes to ``connect(trace=)``, which reads NAVTALK_TRACE by itself where this is not given."""


class SettingsError(NavTalkError):
    """The config file cannot be read. Its values are not shown: one may be the licence."""

    code = "settings"
    hint = "docs/command-line.md says what the config file may hold"


class NoLicenceError(NavTalkError):
    """Neither the environment nor the config file has a licence."""

    code = "no-licence"
    hint = "the console of your account shows it; the emulator takes sk_navtalk_EXAMPLE"


class NoAvatarError(NavTalkError):
    """No argument, no variable of the environment and no config file says whom to call."""

    code = "no-avatar"
    hint = "`navtalk avatars` lists those of a licence; `navtalk serve` prints the emulator's"


class Settings:
    """What the config file says. Made by :meth:`read`."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    @classmethod
    def read(cls) -> Settings:
        """Read the config file; without one, everything has its default. Raises SettingsError."""
        named = os.environ.get(CONFIG_VARIABLE)
        path = Path(named) if named else user_config_path("navtalk") / "config.toml"
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            if named:
                raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {path}") from None
            values = {}
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(f"{path}: {why}") from None
        return cls(path, values)

    @property
    def sources(self) -> list[Callable[..., Any]]:
        """For cyclopts, by falling precedence; arguments and short names come before all."""
        tables = {key: value for key, value in self._values.items() if isinstance(value, dict)}
        shared = {key: self._values[key] for key in _SHARED if key in self._values}
        path = str(self._path)
        return [
            Env("NAVTALK_"),
            Dict(tables, source=path),
            Dict(shared, source=path, use_commands_as_keys=False, allow_unknown=True),
        ]

    def check(self) -> None:
        """Raises SettingsError for a value that no command would ever read."""
        known = (*_SHARED, "license")
        for key, value in self._values.items():
            if not isinstance(value, dict) and key not in known:
                raise SettingsError(
                    f"{self._path}: {key} is none of {', '.join(known)}, and in no command's table"
                )

    def endpoint(
        self, url: str, *, avatar: str | None, avatar_id: str | None, model: str | None
    ) -> Endpoint:
        """Where to connect, with the licence.

        Raises NoLicenceError and NoAvatarError where there is none, EndpointError for a wrong URL.
        """
        license = self.license()
        if not avatar and not avatar_id:
            raise NoAvatarError("say which avatar: --avatar NAME, --avatar-id ID or NAVTALK_AVATAR")
        return Endpoint(
            base_url=url, license=license, name=avatar, avatar_id=avatar_id, model=model
        )

    def license(self) -> Secret:
        """The licence. Raises NoLicenceError where there is none."""
        text = os.environ.get(LICENSE_VARIABLE) or self._values.get("license")
        if text is None or text == "":
            raise NoLicenceError(f"set {LICENSE_VARIABLE} to your licence")
        if not isinstance(text, str):
            raise SettingsError(f"{self._path}: license is not a text")
        return Secret(text)
