"""The table of methods. A method is a function; its signature is its schema.

To add one, write a function in `methods.py` (or a module imported there)::

    @method("vary")
    def vary(session: Session, *, job_id: str, strength: float = 0.5) -> dict[str, Any]: ...

Its keyword parameters are the JSON parameters, checked against the annotations. A method with a
`job_id` is a job: `cancel` finds it, and `session.is_cancelled(job_id)` tells it to stop.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from progidiff.worker.protocol import INVALID_PARAMS, METHOD_NOT_FOUND, Request, RpcError

METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """One entry: the function, and whether it runs at once, beside a running job."""

    call: Callable[..., dict[str, Any]]
    at_once: bool

    @property
    def is_job(self) -> bool:
        return not self.at_once and "job_id" in inspect.signature(self.call).parameters


def method(name: str, at_once: bool = False) -> Callable[[Callable], Callable]:
    """Registers a function under a name; `at_once` ones must be quick and thread-safe."""

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        METHODS[name] = Method(function, at_once)
        return function

    return register


def find_method(request: Request) -> Method:
    """Raises RpcError (-32601) for a name nobody registered."""
    if request.method not in METHODS:
        raise RpcError(METHOD_NOT_FOUND, f"There is no method {request.method[:80]!r}.", request.id)
    return METHODS[request.method]


def check_params(method: Method, request: Request) -> dict[str, Any]:
    """Returns the parameters as keyword arguments.

    Raises:
        RpcError: -32602 naming the parameter that is missing, unknown or of the wrong type.
    """
    signature = inspect.signature(method.call)
    hints = get_type_hints(method.call)
    known = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    for unknown in request.params.keys() - {p.name for p in known}:
        raise RpcError(INVALID_PARAMS, f"{request.method} has no parameter {unknown[:80]!r}.", request.id)
    for parameter in known:
        if parameter.name not in request.params:
            if parameter.default is parameter.empty:
                raise RpcError(INVALID_PARAMS, f"{request.method} needs {parameter.name}.", request.id)
        elif not _fits(request.params[parameter.name], hints[parameter.name]):
            wanted = _describe(hints[parameter.name])
            raise RpcError(INVALID_PARAMS, f"{parameter.name} must be {wanted}.", request.id)
    return dict(request.params)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, option) for option in get_args(hint))
    kind = typing.get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _describe(hint: Any) -> str:
    words = {
        str: "a string",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: "a list",
        dict: "an object",
    }
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return " or ".join(words.get(typing.get_origin(k) or k, "null") for k in kinds)
