"""From parsed documents to values of the schema, with every error at once."""

from __future__ import annotations

import difflib
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin

import attrs

from claw_core.config.parsers import PARSERS, Wrong, Wrongs, described, each, shown

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")
HINTS: Final = 20
"""Unknown keys for which the one that was meant is looked for; more are no slip."""


def structure(document: object, kind: type[T]) -> T:
    """Return a document as a value of the schema.

    Raises:
        Wrongs: everything that is wrong in it.
    """
    try:
        return converter().structure(document, kind)
    except RecursionError:
        raise Wrongs(["it is nested too deeply"]) from None
    except Exception as error:
        raise Wrongs(list(_problems(error, ""))) from error


def converter() -> cattrs.Converter:
    """A converter that never turns one type into another."""
    import cattrs  # 20 ms of processor time, for those who have a configuration
    from cattrs.gen import make_dict_structure_fn

    made = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True, use_alias=True)
    for kind, parse in PARSERS.items():
        hook = functools.partial(_apply, parse)
        if isinstance(kind, type):
            made.register_structure_hook(kind, hook)
        else:
            made.register_structure_hook_func(functools.partial(operator.eq, kind), hook)
    made.register_structure_hook_factory(
        attrs.has,
        lambda kind: _table(
            make_dict_structure_fn(
                kind,
                made,
                _cattrs_forbid_extra_keys=True,
                _cattrs_detailed_validation=True,
                _cattrs_use_alias=True,
            )
        ),
    )
    made.register_structure_hook_factory(
        functools.partial(_is_generic, tuple), lambda kind: _list(made, get_args(kind)[0])
    )
    made.register_structure_hook_factory(
        functools.partial(_is_generic, Mapping), lambda kind: _mapping(made, get_args(kind)[1])
    )
    return made


def _is_generic(origin: Any, kind: Any) -> bool:
    return get_origin(kind) is origin


def _apply(parse: Callable[[Any], Any], value: Any, kind: Any) -> Any:
    return parse(value)


def _table(inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def parse(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong(f"expected a table, got {shown(value)}")
        return inner(value, kind)

    return parse


def _list(made: cattrs.Converter, element: Any) -> Callable[[Any, Any], Any]:
    inner = made.get_structure_hook(element)

    def parse(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"expected a list, got {shown(value)}")
        return tuple(each(enumerate(value), lambda one: inner(one, element), "[{}]", _problems))

    return parse


def _mapping(made: cattrs.Converter, element: Any) -> Callable[[Any, Any], Any]:
    inner = made.get_structure_hook(element)

    def parse(value: Any, _: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Wrong(f"expected a table, got {shown(value)}")
        found = each(value.items(), lambda one: inner(one, element), ".{}", _problems)
        return dict(zip(value, found, strict=True))

    return parse


def _problems(error: Exception, path: str) -> Iterator[str]:
    """Every leaf of an error of cattrs, as `path: what is expected`."""
    from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

    if isinstance(error, ClassValidationError):
        located, others = error.group_exceptions()
        for part, note in located:
            yield from _problems(part, f"{path}.{_alias(error.cl, note.name)}")
        for part in others:
            yield from _problems(part, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.alias for field in attrs.fields(error.cl)]
        for number, key in enumerate(sorted(error.extra_fields)):
            close = difflib.get_close_matches(key, known, 1) if number < HINTS else []
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            yield f"{path}.{shown(key)[1:-1]}: unknown key; {hint}"
    else:
        yield from described(error, path)


def _alias(kind: Any, name: str) -> str:
    return str(getattr(attrs.fields(kind), name).alias)
