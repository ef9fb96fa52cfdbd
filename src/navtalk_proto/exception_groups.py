"""Which exception leaves an ``async with`` that ran several tasks."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["raise_unchanged", "unwrap", "without"]


def unwrap(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a group, however deep; the group itself if there are several."""
    only: BaseException = group
    while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
        only = only.exceptions[0]
    return only


def without(
    group: BaseExceptionGroup[BaseException], kinds: tuple[type[Exception], ...]
) -> BaseExceptionGroup[BaseException]:
    """A group without the exceptions that follow from its others; itself if nothing is left."""
    _, rest = group.split(kinds)
    return group if rest is None else rest


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise an exception that was raised before, with the cause and the context it came with.

    A plain ``raise`` would make what is being handled here its context: where a task of ours
    failed, the cancellation of the body that followed from it.
    """
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
