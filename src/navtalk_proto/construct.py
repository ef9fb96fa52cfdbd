"""Frozen objects without the price of an ``__init__`` that goes through ``__setattr__``.

A frozen attrs class sets each field with ``object.__setattr__``, which looks the slot up by name:
half a microsecond for one field. For the few classes of which every message makes one, that is a
part of the core's cost that can be seen; :func:`positional` sets the slots themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

__all__ = ["positional"]

T = TypeVar("T")


def positional(cls: type[T]) -> Callable[..., T]:
    """A constructor of a frozen slotted class that takes all its fields, in order, as they are.

    Raises TypeError for a class that does more than that when it is made: validators, converters,
    a post-init, fields that are no arguments.
    """
    names = []
    for field in attrs.fields(cls):  # type: ignore[arg-type]
        if field.validator is not None or field.converter is not None or not field.init:
            raise TypeError(f"{cls.__name__}.{field.name} is not just set")
        names.append(field.name)
    if hasattr(cls, "__attrs_post_init__"):
        raise TypeError(f"{cls.__name__} has a post-init")
    lines = [
        f"def make({', '.join(names)}):",
        "    made = allocate(cls)",
        *(f"    set_{name}(made, {name})" for name in names),
        "    return made",
    ]
    namespace: dict[str, Any] = {"allocate": object.__new__, "cls": cls}
    namespace |= {f"set_{name}": getattr(cls, name).__set__ for name in names}
    exec("\n".join(lines), namespace)
    make: Callable[..., T] = namespace["make"]
    return make
