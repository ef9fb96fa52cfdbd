"""Between the model's JSON and Python values: arguments in, results and errors out.

Arguments are structured by cattrs, strictly: what the announced schema does not allow is refused
and never converted. ``"5"`` is no integer, ``true`` is none either, and an unknown key is a mistake
of the model that it can correct once it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs
from cattrs import (
    BaseValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
    transform_error,
)
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.gen.typeddicts import make_dict_structure_fn as make_typeddict_structure_fn

from navtalk_proto.errors import LocalProtocolError, MalformedMessageError
from navtalk_proto.limits import KIB
from navtalk_proto.wire.jsontext import dumps, loads

__all__ = [
    "MAX_MESSAGE",
    "MAX_RESULT",
    "ArgumentsError",
    "ErrorCode",
    "Read",
    "error_text",
    "make_typeddict",
    "reader",
    "result_text",
    "typeddict_members",
]

MAX_RESULT: Final = 64 * KIB
"""Characters of a call's result: it is put into the model's context, and paid for in tokens."""

MAX_MESSAGE: Final = 1000
"""Characters of an error's message: enough to name ten wrong fields."""

Read: TypeAlias = Callable[[str], dict[str, Any]]
"""Turns the JSON text of a call into keyword arguments. Raises ArgumentsError."""


class ErrorCode(Enum):
    """What the model is told went wrong with its call."""

    INVALID_ARGUMENTS = "invalid_arguments"
    UNKNOWN_FUNCTION = "unknown_function"
    TOO_MANY_CALLS = "too_many_calls"
    FAILED = "failed"
    """The function raised."""
    INVALID_RESULT = "invalid_result"
    """It returned what is not JSON, or too much."""
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class ArgumentsError(Exception):
    """The model's arguments are not those of the function; the text says which and why.

    It never quotes a value. Its readers are models, by way of :func:`error_text`.
    """


class _MisfitError(ValueError):
    """A value is not of its type; the text says what it should be."""


# ---- answers


def error_text(code: ErrorCode, message: str) -> str:
    """The output of a call that failed: ``{"error": {"code": ..., "message": ...}}``.

    `message` is cut to :data:`MAX_MESSAGE` characters; lone surrogates become question marks.
    """
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    message = message.encode(errors="replace").decode()
    return dumps({"error": {"code": code.value, "message": message}})


_results: Final = Converter()


def result_text(result: object) -> str:
    """The output of a call that returned `result`: a str as it is, else its JSON text.

    cattrs takes attrs classes, dataclasses, enums and collections of them apart. Raises
    LocalProtocolError for what is not JSON then, and for more than :data:`MAX_RESULT` characters.
    """
    if type(result) is str:
        # Only for what dumps() refuses in a string: the result itself is sent without quotes.
        dumps(result)
        text = result
    else:
        try:
            plain = _results.unstructure(result)
        except Exception as error:
            # Properties and validators of the application run here.
            raise LocalProtocolError(
                f"a {type(result).__name__} is not JSON: {type(error).__name__}"
            ) from error
        text = dumps(plain)
    if len(text) > MAX_RESULT:
        raise LocalProtocolError(f"a result of {len(text)} characters; {MAX_RESULT} are allowed")
    return text


# ---- arguments


class _Strict(Converter):
    """Finds hooks for enums itself: by class, an IntEnum or a StrEnum is an int or a str."""

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Callable[[Any, Any], Any]:
        """Called by cattrs for each type that it meets."""
        return _enum(type) if _is_enum(type) else super().get_structure_hook(type, cache_result)


def reader(arguments: type) -> Read:
    """A function that reads the arguments of a call, for a TypedDict of them.

    Called once for each tool, at registration: cattrs compiles what structures the types. The size
    of what it reads is bounded by ``Limits.arguments``.
    """
    # A converter of its own: one for all would keep the types of every tool ever made.
    converter = _Strict(forbid_extra_keys=True)
    for kind, hook in _SCALARS:
        converter.register_structure_hook(kind, hook)
    for predicate, factory in _STRICT:
        converter.register_structure_hook_factory(predicate, factory)
    structure = converter.get_structure_hook(arguments)

    def read(text: str) -> dict[str, Any]:
        try:
            value = loads(text)
        except MalformedMessageError as error:
            raise ArgumentsError(f"the text {error.reason}") from None
        try:
            structured: dict[str, Any] = structure(value, arguments)
        except (_MisfitError, BaseValidationError) as error:
            found = transform_error(error, "", _describe)
        else:
            return structured
        raise ArgumentsError("; ".join(map(_path_first, found)))

    return read


def _describe(error: BaseException, _: type | None) -> str:
    if isinstance(error, _MisfitError):
        return str(error)
    if isinstance(error, KeyError):
        return "is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        return f"has unknown keys: {', '.join(sorted(error.extra_fields))}"
    # A validator of the application: its text may quote the value, or more.
    return f"is refused ({type(error).__name__})"


def _path_first(found: str) -> str:
    """cattrs says "what @ path", with a path that begins with a dot."""
    what, _, path = found.rpartition(" @ ")
    return f"{path.removeprefix('.') or 'the whole'}: {what}"


def _exactly(kind: type, name: str) -> Callable[[Any, Any], Any]:
    """A hook for a type that JSON has: bool is an int in Python, and no number in JSON."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _MisfitError(f"must be {name}")
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise _MisfitError("must be a number")
    return float(value)


def _one_of(values: tuple[Any, ...], members: tuple[Any, ...]) -> Callable[[Any, Any], Any]:
    """A hook that finds a value of its own type among some: 1, 1.0 and True are equal in Python."""

    def structure(value: Any, _: Any) -> Any:
        for known, member in zip(values, members, strict=True):
            if type(known) is type(value) and known == value:
                return member
        raise _MisfitError(f"must be one of {', '.join(map(dumps, values))}")

    return structure


def _enum(kind: type[Enum]) -> Callable[[Any, Any], Any]:
    return _one_of(tuple(member.value for member in kind), tuple(kind))


def _literal(hint: Any, _: Converter) -> Callable[[Any, Any], Any]:
    return _one_of(get_args(hint), get_args(hint))


def _guarded(
    kind: type, name: str, structure: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    """cattrs takes any iterable for a list; a string is one."""
    check = _exactly(kind, name)

    def guarded(value: Any, hint: Any) -> Any:
        return structure(check(value, hint), hint)

    return guarded


def _list(hint: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    return _guarded(list, "an array", list_structure_factory(hint, converter))


def _dict(hint: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    return _guarded(dict, "an object", mapping_structure_factory(hint, converter))


def _tuple(hint: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    members = get_args(hint)
    if members[1:] == (...,):
        whole = converter.get_structure_hook(list[members[0]])  # type: ignore[valid-type]
        return lambda value, _: tuple(whole(value, list))
    hooks = [(member, converter.get_structure_hook(member)) for member in members]

    def structure(value: list[Any], _: Any) -> tuple[Any, ...]:
        if len(value) != len(hooks):
            raise _MisfitError(f"must have {len(hooks)} items")
        items, errors = [], []
        for index, (item, (member, hook)) in enumerate(zip(value, hooks, strict=True)):
            try:
                items.append(hook(item, member))
            except (_MisfitError, BaseValidationError) as error:
                error.add_note(IterableValidationNote(f"item {index}", index, member))
                errors.append(error)
        if errors:
            raise IterableValidationError("items of a tuple", errors, tuple)
        return tuple(items)

    return _guarded(list, "an array", structure)


# A checker wants to read the members of a TypedDict in the source.
make_typeddict: Final[Callable[[str, dict[str, Any]], type]] = TypedDict  # type: ignore[assignment]


def typeddict_members(kind: Any) -> list[tuple[str, Any, bool]]:
    """Name and resolved type of each key, and whether it is required.

    Annotations that are strings hide Required and NotRequired from the class itself.
    """
    members = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        required = name in kind.__required_keys__
        bare = hint
        while (origin := get_origin(bare)) in (Annotated, Required, NotRequired):
            if origin is not Annotated:
                required = origin is Required
            bare = get_args(bare)[0]
        members.append((name, bare, required))
    return members


def _typeddict(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    members = {
        name: Required[hint] if required else NotRequired[hint]
        for name, hint, required in typeddict_members(kind)
    }
    made: Callable[[Any, Any], Any] = make_typeddict_structure_fn(
        make_typeddict(kind.__name__, members), converter, _cattrs_use_linecache=False
    )
    return _guarded(dict, "an object", made)


def _class(kind: type, converter: Converter) -> Callable[[Any, Any], Any]:
    made: Callable[[Any, Any], Any] = make_dict_structure_fn(
        kind, converter, _cattrs_use_linecache=False
    )
    return _guarded(dict, "an object", made)


def _union(hint: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    members = get_args(hint)
    hooks = [
        (
            get_args(member)[0] if get_origin(member) is Annotated else member,
            converter.get_structure_hook(member),
        )
        for member in members
    ]
    others = [hook for member, hook in hooks if member is not NoneType]

    def structure(value: Any, _: Any) -> Any:
        if value is None and len(others) < len(hooks):
            return None
        if len(others) == 1:
            return others[0](value, None)
        # The member of the value's own type first: 5 is an int to `float | int`.
        kind = type(value)
        for _member, hook in sorted(hooks, key=lambda pair: pair[0] is not kind):
            try:
                return hook(value, _member)
            except (_MisfitError, BaseValidationError):
                continue
        raise _MisfitError("fits no member of the union")

    return structure


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and (attrs.has(hint) or is_dataclass(hint))


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda hint: get_origin(hint) in origins


_SCALARS: Final[tuple[tuple[type, Callable[[Any, Any], Any]], ...]] = (
    (str, _exactly(str, "a string")),
    (int, _exactly(int, "an integer")),
    (float, _number),
    (bool, _exactly(bool, "true or false")),
    (NoneType, _exactly(NoneType, "null")),
)

# Predicate and factory; of those that hold, the last one counts.
_STRICT: Final[tuple[tuple[Callable[[Any], bool], Callable[..., Any]], ...]] = (
    (_origin(Literal), _literal),
    (_origin(Union, UnionType), _union),
    (_origin(list), _list),
    (_origin(dict), _dict),
    (_origin(tuple), _tuple),
    (_is_class, _class),
    (is_typeddict, _typeddict),
)
