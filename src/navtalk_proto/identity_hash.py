"""Enums that are looked up often: hashed by identity, which is what their equality is."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

__all__ = ["identity_hash"]

_E = TypeVar("_E", bound=Enum)


def identity_hash(cls: type[_E]) -> type[_E]:
    """Have an enum's members hashed in C. Enum's own hash is of the name, and is Python code.

    A decorator of an enum whose members are keys of a table that every message looks into. Its
    hashes differ from one process to the next, as those of strings do.
    """
    cls.__hash__ = object.__hash__  # type: ignore[method-assign]
    return cls
