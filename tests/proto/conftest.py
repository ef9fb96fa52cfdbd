"""What several tests of the core share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import pytest


def _walk(value: object, path: tuple[int, ...] = ()) -> Any:
    """All of an object's state as plain tuples; enums, classes and plain values are themselves."""
    if value is None or isinstance(value, bool | int | float | str | bytes | Enum | type):
        return value
    if id(value) in path:
        return "<cycle>"
    path = (*path, id(value))
    if isinstance(value, Mapping):
        return tuple((_walk(key, path), _walk(item, path)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(_walk(item, path) for item in value)
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(_walk(item, path) for item in value))
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    names += vars(value) if hasattr(value, "__dict__") else []
    state = tuple(
        (name, _walk(getattr(value, name), path))
        for name in names
        if name != "__weakref__" and hasattr(value, name)
    )
    return (type(value).__name__, state)


@pytest.fixture
def snapshot() -> Callable[[object], Any]:
    """A function that gives all the state of an object, slots included, as comparable tuples."""
    return _walk
