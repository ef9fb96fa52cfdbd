"""``navtalk tools``: the schema that would be sent for a function, before any session."""

from __future__ import annotations

import importlib
import json as json_module
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.terminal import Screen
from navtalk_proto.errors import ToolError
from navtalk_proto.tools.schema import Tool, ToolSet

__all__ = ["add_tools"]


def add_tools(app: App) -> None:
    """Add the command."""

    @app.command
    def tools(*names: str, json: Annotated[bool, Parameter(negative=())] = False) -> int:
        """Show what the model would be told of functions, or why one cannot be a tool.

        Parameters
        ----------
        names
            Functions, tools, or lists of them, as module:attribute, from this folder too.
        json
            As one JSON object, whose "tools" is the list.
        """
        screen = Screen(json=json)
        if not names:
            return screen.complain("name a function, as module:attribute", code=ExitCode.USAGE)
        try:
            found = [tool for name in names for tool in _found(name)]
            announced = list(ToolSet.of(found).announced)
        except ToolError as error:
            return screen.failed(error)
        screen.result("tools", {"tools": announced}, json_module.dumps(announced, indent=2))
        return ExitCode.OK


class NoSuchToolError(ToolError):
    """What was named on the command line is not there, or cannot be a tool by what it is."""

    code = "no-such-tool"
    hint = "name a function, a tool, or a list of them, as module:attribute, from this folder too"


def _found(name: str) -> list[Any]:
    """What ``module:attribute`` names. Raises NoSuchToolError, and what the module raises."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise NoSuchToolError(f'{name!r} is not "module:attribute"')
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # The module is there; one that it imports is not.
        raise NoSuchToolError(f"there is no module {module_name!r}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NoSuchToolError(f"{module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if isinstance(found, Tool | Mapping) or callable(found):
        return [found]
    if isinstance(found, list | tuple):
        return list(found)
    raise NoSuchToolError(
        f"{name} is a {type(found).__name__}, and no function, tool or list of them"
    )
