"""From a Python function to a tool: what the model is told of it, in OpenAI's function format.

The parameters' JSON schema comes from the type hints (protocol.md 5.8). What has no JSON schema is
refused when the tool is made, and not when the model calls it.

================================== ==============================================================
hint                               schema
================================== ==============================================================
``str int float bool None``        ``string integer number boolean null``
``Literal[...]``, an ``Enum``      ``enum`` of the values
``X | None``, ``Union``            ``anyOf``
``list[X]``                        ``array`` with ``items``
``tuple[X, ...]``, ``tuple[X, Y]`` the same; ``prefixItems`` of a fixed length
``dict[str, X]``                   ``object`` with ``additionalProperties``
``TypedDict``, attrs, dataclass    ``object`` with ``properties`` and nothing else
``Annotated[X, "..."]``            that of X, with the description
================================== ==============================================================

A parameter with a default is not required. The first paragraph of the docstring describes the
function; its section of parameters, in the styles of Google, NumPy and Sphinx, describes them where
``docstring-parser`` is installed, which both adapters' extras bring. Annotated wins over it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from math import inf
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
    overload,
)

import attrs
from attrs import field, frozen, validators

from navtalk_proto.errors import ToolError
from navtalk_proto.tools.arguments import Read, make_typeddict, reader, typeddict_members
from navtalk_proto.wire.messages import JsonObject, JsonValue

__all__ = ["DEFAULT_TIMEOUT", "OnInterrupt", "Tool", "ToolLike", "ToolSet", "tool"]

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that a call may take: about as long as somebody waits who was told to wait."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What OpenAI takes for a function's name."""


class OnInterrupt(Enum):
    """What happens to a call when the user interrupts: speaks, or stops the answer."""

    FINISH = "finish"
    """It goes on; the human speaks of its result when it is there. For what must be done."""
    CANCEL = "cancel"
    """It is cancelled, and the model is told so. For what only the answer needed."""


@frozen(kw_only=True)
class Tool:
    """A function that the model may call. Made by :func:`tool`."""

    name: str
    description: str
    parameters: JsonObject
    """JSON schema of the arguments: an object."""
    function: Callable[..., Any] = field(repr=False)
    timeout: float = field(
        default=DEFAULT_TIMEOUT, validator=[validators.gt(0.0), validators.lt(inf)]
    )
    """Seconds from the call to its answer, waiting for other calls included. A call that takes
    longer is answered with an error."""
    on_interrupt: OnInterrupt = field(
        default=OnInterrupt.FINISH, validator=validators.instance_of(OnInterrupt)
    )
    read: Read = field(repr=False, eq=False)
    """Turns the JSON text of a call into `function`'s keyword arguments; raises ArgumentsError."""

    @property
    def asynchronous(self) -> bool:
        """Whether the function is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def schema(self) -> JsonObject:
        """What is announced to the model (protocol.md 5.8)."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }


ToolLike: TypeAlias = Tool | Callable[..., Any] | JsonObject
"""What ``connect(tools=...)`` takes. A JSON object is announced as it is; its calls are left to the
application."""


@frozen
class ToolSet:
    """The tools of a session, in the order in which they are announced."""

    functions: Mapping[str, Tool]
    """Those with a function, by name."""
    announced: tuple[JsonObject, ...]
    """All of them, in OpenAI's function format."""

    @staticmethod
    def of(tools: Iterable[ToolLike]) -> ToolSet:
        """Called by ``connect()``. Raises ToolError for a bad tool, or two of one name."""
        functions: dict[str, Tool] = {}
        announced: list[JsonObject] = []
        names: set[JsonValue] = set()
        for given in tools:
            if isinstance(given, Mapping):
                schema = given
            else:
                made = given if isinstance(given, Tool) else tool(given)
                functions[made.name] = made
                schema = made.schema
            name = schema.get("name")
            if not isinstance(name, str):
                raise ToolError(f"a tool's schema has no name: {sorted(schema)}")
            if name in names:
                raise ToolError(f"two tools are called {name}")
            names.add(name)
            announced.append(schema)
        return ToolSet(functions, tuple(announced))


@overload
def tool(
    function: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    on_interrupt: OnInterrupt = OnInterrupt.FINISH,
) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    on_interrupt: OnInterrupt = OnInterrupt.FINISH,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    on_interrupt: OnInterrupt = OnInterrupt.FINISH,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function or method, also as a decorator: ``@tool``, ``@tool(timeout=5)``.

    `name` and `description` replace the function's own name and docstring. `timeout` and
    `on_interrupt` are those of :class:`Tool`.

    Raises ToolError, which names the function, and the parameter and type where it is about one:
    no type hint, a type without a schema, a class that contains itself, ``*args``, ``**kwargs`` or
    a positional-only parameter, a name that the model may not call. ValueError for a timeout that
    is not positive and finite.
    """

    def make(function: Callable[..., Any]) -> Tool:
        if not (inspect.isfunction(function) or inspect.ismethod(function)):
            raise ToolError(f"{_called(function)} is no function; wrap it in one with type hints")
        known_as = function.__name__ if name is None else name
        if not _NAME.fullmatch(known_as):
            raise ToolError(
                f"{_called(function)}: {known_as!r} is no name for a tool; "
                "it takes 1 to 64 letters, digits, - and _"
            )
        documented = inspect.getdoc(function) or ""
        hints = _hints(function)
        schemas = _Schemas(_called(function))
        described = _described_parameters(documented)
        properties: dict[str, JsonValue] = {}
        required: list[str] = []
        members: dict[str, Any] = {}
        for parameter, hint in hints:
            schema = schemas.of(hint, parameter.name)
            if parameter.name in described:
                schema = {"description": described[parameter.name], **schema}
            properties[parameter.name] = schema
            if parameter.default is parameter.empty:
                required.append(parameter.name)
                members[parameter.name] = Required[hint]
            else:
                members[parameter.name] = NotRequired[hint]
        first_paragraph = " ".join(documented.partition("\n\n")[0].split())
        return Tool(
            name=known_as,
            description=first_paragraph if description is None else description,
            parameters=_object(properties, required),
            function=function,
            timeout=timeout,
            on_interrupt=on_interrupt,
            read=reader(make_typeddict("Arguments", members)),
        )

    return make if function is None else make(function)


def _called(function: object) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', '')}.{name}"


def _hints(function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    """Each parameter and its type, with annotations that are strings resolved."""
    # The hints of a decorated function are those of the function inside.
    names = getattr(inspect.unwrap(function), "__globals__", {})
    found = []
    for parameter in inspect.signature(function).parameters.values():
        where = f"{_called(function)}, parameter {parameter.name}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolError(f"{where}: a model cannot give a {parameter.kind.description} one")
        if parameter.annotation is parameter.empty:
            raise ToolError(f"{where}: has no type hint")
        # One by one, without the result: what it is does not matter, and may not resolve.
        holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            hint = get_type_hints(holder, names, include_extras=True)[parameter.name]
        except Exception as error:
            raise ToolError(f"{where}: {parameter.annotation!r} is no type: {error}") from error
        found.append((parameter, hint))
    return found


def _described_parameters(documented: str) -> dict[str, str]:
    """What the docstring says of each parameter."""
    try:
        from docstring_parser import parse
    except ImportError:
        return {}
    return {
        one.arg_name: " ".join(one.description.split())
        for one in parse(documented).params
        if one.description
    }


def _object(properties: Mapping[str, JsonValue], required: Sequence[str]) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_SCALARS: Final[Mapping[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    NoneType: "null",
}


class _Schemas:
    """Makes JSON schemas of type hints; refuses what has none, and says where it is."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._open: list[type] = []

    def of(self, hint: Any, where: str) -> JsonObject:
        """The schema of a hint. `where` is the path to it, from the parameter on."""
        described: list[str] = []
        while get_origin(hint) in (Annotated, Required, NotRequired):
            described += (extra for extra in get_args(hint)[1:] if isinstance(extra, str))
            hint = get_args(hint)[0]
        schema = self._bare(hint, where)
        return {**schema, "description": described[0]} if described else schema

    def _bare(self, hint: Any, where: str) -> JsonObject:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is None:
            return self._plain(hint, where)
        if not arguments:
            raise self._unsupported(hint, where)
        if origin is Literal:
            return self._enum(arguments, hint, where)
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(one, where) for one in arguments]}
        if origin is list:
            return {"type": "array", "items": self.of(arguments[0], f"{where}[]")}
        if origin is tuple:
            return self._tuple(arguments, where)
        if origin is dict and arguments[0] is str:
            values = self.of(arguments[1], f"{where}{{}}")
            return {"type": "object", "additionalProperties": values}
        raise self._unsupported(hint, where)

    def _plain(self, hint: Any, where: str) -> JsonObject:
        if not isinstance(hint, type):
            raise self._unsupported(hint, where)
        if hint in _SCALARS:
            return {"type": _SCALARS[hint]}
        if issubclass(hint, Enum):
            return self._enum([member.value for member in hint], hint, where)
        if is_typeddict(hint) or attrs.has(hint) or dataclasses.is_dataclass(hint):
            return self._fields(hint, where)
        raise self._unsupported(hint, where)

    def _tuple(self, members: tuple[Any, ...], where: str) -> JsonObject:
        if members[1:] == (...,):
            return {"type": "array", "items": self.of(members[0], f"{where}[]")}
        return {
            "type": "array",
            "prefixItems": [
                self.of(member, f"{where}[{index}]") for index, member in enumerate(members)
            ],
            "minItems": len(members),
            "maxItems": len(members),
        }

    def _enum(self, values: Sequence[Any], hint: Any, where: str) -> JsonObject:
        kinds = {_SCALARS.get(type(one)) for one in values}
        if None in kinds or not kinds:
            raise self._unsupported(hint, where)
        (kind, *others) = kinds
        return {"enum": list(values)} if others else {"type": kind, "enum": list(values)}

    def _fields(self, kind: type, where: str) -> JsonObject:
        if kind in self._open:
            raise ToolError(
                f"{self._function}, parameter {where}: {kind.__qualname__} contains itself"
            )
        self._open.append(kind)
        try:
            hints = get_type_hints(kind, include_extras=True)
        except Exception as error:
            raise ToolError(
                f"{self._function}, parameter {where}: a hint of {kind.__qualname__} "
                f"is no type: {error}"
            ) from error
        properties, required = {}, []
        for name, is_required in _members(kind):
            if name not in hints:
                raise ToolError(f"{self._function}, parameter {where}.{name}: has no type hint")
            properties[name] = self.of(hints[name], f"{where}.{name}")
            if is_required:
                required.append(name)
        self._open.pop()
        return _object(properties, required)

    def _unsupported(self, hint: Any, where: str) -> ToolError:
        shown = hint.__qualname__ if isinstance(hint, type) else repr(hint)
        return ToolError(f"{self._function}, parameter {where}: {shown} has no JSON schema here")


def _members(kind: Any) -> list[tuple[str, bool]]:
    """The names in a class's constructor or TypedDict, and whether each is required."""
    if is_typeddict(kind):
        return [(name, required) for name, _, required in typeddict_members(kind)]
    if attrs.has(kind):
        return [(one.name, one.default is attrs.NOTHING) for one in attrs.fields(kind) if one.init]
    return [
        (one.name, one.default is one.default_factory is dataclasses.MISSING)
        for one in dataclasses.fields(kind)
        if one.init
    ]
