#!/usr/bin/env bash
# Makes .venv with the engine and its dependencies; with the word "test" also what the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
pip() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

[ -x .venv/bin/python ] || python3 -m venv .venv
# One exact version: a range would take the newest build with gigabytes of GPU libraries.
pip "torch==2.13.0"
if [ "${1:-}" != test ]; then
  pip --editable .
  exit
fi
pip --editable ".[test]" --requirement Testing/Module/requirements.txt

# Pictures without a screen; the module tests are skipped, and say so, where these cannot be installed.
libraries=(libegl1 libosmesa6 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0 libx11-6 fonts-dejavu-core)
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && ! dpkg --status "${libraries[@]}" >/dev/null 2>&1; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${libraries[@]}" >/dev/null
fi
