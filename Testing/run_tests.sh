#!/usr/bin/env bash
# Sets everything up and runs all checks and tests.
set -euo pipefail
cd "$(dirname "$0")/.."
Testing/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
