"""A worker that says hello and then hears nothing, not even that its stdin has closed."""

from __future__ import annotations

import json
import os
import sys
import time

request = json.loads(sys.stdin.readline())
result = {"pid": os.getpid(), "directory": "/", "torch": "2.9.0", "python": sys.version}
print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
time.sleep(600)
