"""The public API is a list in public_api.txt: what changes it changes that file, for all to see.

After a change that is meant: ``python tests/docs/test_public_api.py > tests/docs/public_api.txt``.
"""

from __future__ import annotations

import difflib
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("public_api.txt")
MODULES = (
    "navtalk_proto",
    "navtalk_proto.actions",
    "navtalk_proto.events",
    "navtalk_proto.intents",
    "navtalk_proto.media",
    "navtalk_proto.stats",
    "navtalk_proto.wire.messages",
    "navtalk_proto.testing",
    "navtalk_asyncio",
    "navtalk_asyncio.media",
    "navtalk_asyncio.testing",
    "navtalk_asyncio.testing.pytest_plugin",
    "navtalk_asyncio.emulator",
    "navtalk_sound",
    "navtalk_trio",
    "navtalk_trio.testing",
)


def signature(thing: Any) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(thing)))
    except (TypeError, ValueError):
        return ""


def members(cls: type) -> Iterator[str]:
    """The public members that a class has from our packages, inherited ones included."""
    for name in sorted(dir(cls)):
        if name.startswith("_"):
            continue
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is None or not owner.__module__.startswith("navtalk_"):
            continue
        member = inspect.getattr_static(cls, name)
        match member:
            case property():
                yield f"    {name}: property"
            case staticmethod() | classmethod():
                yield f"    {name}{signature(member.__func__)}  # {type(member).__name__}"
            case _ if inspect.isfunction(member):
                prefix = "async " if inspect.iscoroutinefunction(member) else ""
                yield f"    {prefix}{name}{signature(member)}"
            case enum.Enum():
                yield f"    {name} = {member.value!r}"
            case _:
                yield f"    {name}"


def listing() -> str:
    lines = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines.append(f"\n{module_name}")
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if inspect.isclass(thing):
                lines.append(
                    f"  class {name}{'' if issubclass(thing, enum.Enum) else signature(thing)}"
                )
                lines += (f"  {member}" for member in members(thing))
            elif inspect.isfunction(thing):
                prefix = "async " if inspect.iscoroutinefunction(thing) else ""
                lines.append(f"  {prefix}{name}{signature(thing)}")
            else:
                lines.append(f"  {name}")
    return "\n".join(lines).lstrip() + "\n"


def test_the_public_api_is_as_listed() -> None:
    listed, found = LIST.read_text("utf-8"), listing()
    changed = "".join(
        difflib.unified_diff(
            listed.splitlines(keepends=True), found.splitlines(keepends=True), "listed", "found"
        )
    )
    assert not changed, f"the public API changed; see the first lines of this file\n{changed}"


def test_every_public_name_says_what_it_is() -> None:
    missing = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        assert module.__doc__, module_name
        for name in module.__all__:
            thing = getattr(module, name)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.getdoc(thing):
                missing.append(f"{module_name}.{name}")
    assert missing == []


if __name__ == "__main__":
    print(listing(), end="")
