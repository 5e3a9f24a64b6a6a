"""One JSON object a line; and how the worker is to behave."""

from __future__ import annotations

import json
import os
import sys
import threading

BEHAVIOUR = set(os.environ.get("FAKE_WORKER", "").split("+"))
_lock = threading.Lock()


def send(**message: object) -> None:
    with _lock:
        sys.stdout.write(json.dumps(_public({"jsonrpc": "2.0", **message})) + "\n")
        sys.stdout.flush()


def _public(value: object) -> object:
    """Without the arrays that only this process uses."""
    if isinstance(value, dict):
        return {k: _public(v) for k, v in value.items() if not k.startswith("_")}
    return [_public(v) for v in value] if isinstance(value, list) else value


def notify(method: str, **params: object) -> None:
    send(method=method, params=params)


def refusal(kind: str, message: str, remedy: str) -> ValueError:
    return ValueError(kind, message, remedy)
