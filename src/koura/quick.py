"""quick: frozen dataclasses that are cheap to make, for values made for every packet, or by the hundred thousand in a load.

    @quick
    @dataclass(frozen=True, slots=True)
    class Flow: ...

The __init__ of a frozen dataclass sets each field through object.__setattr__, which costs four times what a plain assignment does.
This one lets the object be an unfrozen twin for as long as its fields are set: a class of the same slots that nobody else sees. Then
it is what it is, and frozen. Everything else is the dataclass's own. Such a class has no subclasses.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])


def quick(kind: C) -> C:
    """The class, with a quicker __init__."""
    twin = type(kind.__name__, kind.__bases__, {"__slots__": kind.__slots__})
    known: dict[str, Any] = {"_kind": kind, "_twin": twin, "_become": object.__setattr__, "_MISSING": MISSING}
    parameters, lines = [], []
    for field in fields(kind):
        name = field.name
        made = f"{name} if {name} is not _MISSING else _make_{name}()"
        if field.default_factory is not MISSING:
            known[f"_make_{name}"] = field.default_factory
            lines.append(f"self.{name} = {made if field.init else f'_make_{name}()'}")
        elif field.init:
            lines.append(f"self.{name} = {name}")
        if field.init:
            known[f"_default_{name}"] = field.default  # MISSING where a factory makes it
            has_default = field.default is not MISSING or field.default_factory is not MISSING
            parameters.append(f"{name}=_default_{name}" if has_default else name)
    end = ["self.__class__ = _kind"] + (["self.__post_init__()"] if hasattr(kind, "__post_init__") else [])
    kind.__init__ = _function(["self", *parameters], ["_become(self, '__class__', _twin)", *lines, *end], known)
    return kind


def _function(parameters: list[str], lines: list[str], known: Mapping[str, Any]) -> Any:
    """An __init__ made of text, as dataclasses make theirs."""
    text = f"def __init__({', '.join(parameters)}):\n" + "".join(f"    {line}\n" for line in lines)
    scope = dict(known)
    exec(text, scope)  # Names of fields and nothing else stand in it.
    return scope["__init__"]
