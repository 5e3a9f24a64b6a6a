#!/usr/bin/env bash
# Sets everything up and shows the main job on the embedded model.
# Usage: Testing/demo.sh [IMAGE [PROMPT [OUTPUT]]]; without an image it draws a synthesised CT first.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/Testing/setup.sh"
image="${1:-}"
prompt="${2:-segment the liver}"
output="${3:-$root/out}"
if [ -z "$image" ]; then
  mkdir -p "$output"
  image="$output/phantom_ct.nii.gz"
  "$root/.venv/bin/progidiff" phantom --seed 7 --modality CT --output "$image"
fi
"$root/.venv/bin/progidiff" segment "$image" --prompt "$prompt" --output "$output"
