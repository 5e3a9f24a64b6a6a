#!/usr/bin/env bash
# Makes .venv with the engine and its dependencies. Usage: Testing/setup.sh [test]
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:+[$1]}"
[ -x .venv/bin/python ] || python3 -m venv .venv
# One exact version: a range would take the newest build with gigabytes of GPU libraries.
.venv/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras"
