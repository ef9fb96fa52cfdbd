"""``navtalk avatars``: which digital humans a licence has, and what is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.settings import Seconds, Settings, Url
from navtalk_asyncio.cli.terminal import Screen, error_console
from navtalk_proto.errors import AvatarLookupError, LicenseRefusedError, NavTalkError
from navtalk_proto.wire.avatar_lookup import LOOKUP_SECONDS, AvatarDetail
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint

__all__ = ["add_avatars"]

_ANY = "any"
"""An endpoint is somebody's; whose it is does not matter for a list."""


def add_avatars(app: App, backend: Backend, settings: Settings) -> None:
    """Add the command."""

    @app.command
    def avatars(
        name: str | None = None,
        *,
        id: str | None = None,
        url: Url = DEFAULT_BASE_URL,
        api_url: str | None = None,
        timeout: Seconds = LOOKUP_SECONDS,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """List the digital humans of a licence, or look one up by its name or its id.

        Warns where several have the name: a session by name gets one of them, by id the right one.

        Parameters
        ----------
        name
            The human's name, as in navtalk.Leo; without it and --id, all are listed.
        id
            The human's id.
        url
            The server of the sessions; look-ups go to its own host, or to NavTalk's.
        api_url
            The look-up service, where it is elsewhere.
        timeout
            Seconds that a look-up may take.
        json
            The result as one JSON object.
        """
        screen = Screen(json=json)
        try:
            endpoint = Endpoint(
                base_url=url,
                license=settings.license(),
                name=name or (_ANY if id is None else None),
                avatar_id=id,
            )
            asked = partial(
                _look_up, backend, endpoint, alone=name is not None or id is not None,
                api_url=api_url, timeout=timeout,
            )  # fmt: skip
            found, same = run_on_loop(backend, asked)
        except (NavTalkError, OSError, ImportError) as error:
            if isinstance(error, ImportError):
                return screen.complain(str(error), code=ExitCode.USAGE)
            return screen.failed(error)
        if same > 1:
            error_console().print(
                f"warning: {same} avatars are called {found[0].name}; use --avatar-id",
                style="yellow",
                soft_wrap=True,
            )
        _print(screen, found, ambiguous=same > 1)
        return ExitCode.OK


async def _look_up(
    backend: Backend,
    endpoint: Endpoint,
    *,
    alone: bool,
    api_url: str | None,
    timeout: float,  # noqa: ASYNC109 - the error names the seconds
) -> tuple[Sequence[AvatarDetail], int]:
    """What was found, and how many have the name of the first."""
    options: dict[str, Any] = {"api_url": api_url, "timeout": timeout}
    if not alone:
        return await backend.list_avatars(endpoint, **options), 0
    found = await backend.resolve_avatar(endpoint, **options)
    try:
        known = await backend.list_avatars(endpoint, **options)
    except LicenseRefusedError:
        raise
    except AvatarLookupError:
        return [found], 0  # A server without a list cannot be asked who else has the name.
    return [found], sum(one.name == found.name for one in known)


def _print(screen: Screen, found: Sequence[AvatarDetail], *, ambiguous: bool) -> None:
    if screen.json:
        listed = [
            {
                "id": one.id,
                "name": one.name,
                "provider": one.provider_name,
                "model": one.model,
                "voice": one.voice,
                "status": one.status,
                "tools": one.capabilities.tools,
                "images": one.capabilities.images,
            }
            for one in found
        ]
        screen.result("avatars", {"avatars": listed, "ambiguous": ambiguous}, "")
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        for one in found:
            print("\t".join((one.name, one.id, one.provider_name, one.model, one.voice)))
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("name", "id", "provider", "model", "voice", "takes"):
        table.add_column(column, overflow="fold")
    for one in found:
        takes = [what for what in ("tools", "images") if getattr(one.capabilities, what)]
        table.add_row(
            one.name, one.id, one.provider_name, one.model, one.voice, ", ".join(takes) or "speech"
        )
    console.print(table)
