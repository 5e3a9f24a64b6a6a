"""JSON-RPC 2.0: lines to requests, results and exceptions to lines. `PROTOCOL.md` is the manual."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from math import isfinite
from typing import Any

from progidiff.errors import DeviceError, ProGiDiffError
from progidiff.out_of_memory import is_out_of_memory

PROTOCOL_VERSION = 1

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
USER_ERROR = -32000


class RpcError(Exception):
    """A request that breaks the protocol; `request_id` is what could be read of its id."""

    def __init__(self, code: int, message: str, request_id: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


@dataclass(frozen=True)
class Request:
    """One call. `wants_answer` is False for a JSON-RPC notification (no id)."""

    method: str
    params: dict[str, Any]
    id: str | int | float | None = None
    wants_answer: bool = True


def parse_line(line: bytes | None) -> Request:
    """Reads one request.

    Args:
        line: the bytes without newline, or None for a line that was too long to be kept.

    Raises:
        RpcError: not JSON, or JSON that is not a request of this protocol.
    """
    if line is None:
        raise RpcError(PARSE_ERROR, "The line is too long; arrays travel as files.")
    try:
        message = json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"The line is not JSON in UTF-8: {error}") from error
    if not isinstance(message, dict):
        raise RpcError(INVALID_REQUEST, "A request must be one JSON object; batches are not supported.")
    request_id = message.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | float | None):
        raise RpcError(INVALID_REQUEST, "The id must be a string or a number.")
    if message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise RpcError(INVALID_REQUEST, 'A request needs "jsonrpc": "2.0" and a method.', request_id)
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "Parameters must be given by name, as an object.", request_id)
    return Request(message["method"], params, request_id, wants_answer="id" in message)


def _finite(text: str) -> float:
    """Raises ValueError for NaN, Infinity and what is as good as that, such as 1e999."""
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:80]} is no finite number")
    return number


def result_line(request_id: Any, result: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def notification_line(method: str, params: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})


def error_line(request_id: Any, error: BaseException) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": request_id, "error": error_object(error)})


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("utf-8")


def error_object(error: BaseException) -> dict[str, Any]:
    """The JSON-RPC error object for any exception; its `data` is what the application shows."""
    if isinstance(error, RpcError):
        return _error_object(error.code, "ProtocolError", str(error), "")
    if is_out_of_memory(error) and not isinstance(error, ProGiDiffError):
        error = DeviceError(
            "The computer ran out of memory.",
            "Close other programs, crop the volume, or choose fewer proposals.",
        )
    if isinstance(error, ProGiDiffError):
        return _error_object(USER_ERROR, error.kind, error.message, error.remedy)
    described = _error_object(
        INTERNAL_ERROR,
        "InternalError",
        f"Something unforeseen went wrong in the worker ({type(error).__name__}: {error}).",
        "Please try again; if it comes back, report it with the log.",
    )
    described["data"]["traceback"] = "".join(traceback.format_exception(error))
    return described


def _error_object(code: int, kind: str, message: str, remedy: str) -> dict[str, Any]:
    return {"code": code, "message": message, "data": {"kind": kind, "message": message, "remedy": remedy}}
