#!/usr/bin/env bash
# Test the pack in a real ComfyUI, from nothing but a checkout of it:
#
#   COMFYUI_PATH=/path/to/ComfyUI tests/comfyui/run.sh [pytest arguments, tests/comfyui unless given]
#
# PYTHON    an interpreter with torch, torchvision and torchaudio; without it an environment is made (several GB).
# CACHE     where that environment and what the checkout wants beside it are kept for the next time.
# COMFYUI_ARGS  arguments for ComfyUI's main.py in place of --cpu.
# CHROMIUM  a browser for the tests of the page; without one they are skipped.
# SHOTS     a folder for screenshots of the page.
set -euo pipefail
: "${COMFYUI_PATH:?set it to a checkout of ComfyUI}"
COMFYUI_PATH=$(realpath "$COMFYUI_PATH")
export COMFYUI_PATH
cd "$(dirname "$0")/../.."
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/adaattn-comfyui}
mkdir -p "$CACHE"

if [ -z "${PYTHON:-}" ]; then
    PYTHON=$CACHE/environment/bin/python
    if [ ! -x "$PYTHON" ]; then
        python3 -m venv "$CACHE/environment"
        "$PYTHON" -m pip install --quiet torch torchvision torchaudio
    fi
    "$PYTHON" -m pip install --quiet -r "$COMFYUI_PATH/requirements.txt" pytest playwright
fi
export PYTHON

# Every ComfyUI pins the page, the templates and the help that it serves. Where the interpreter has others, they are put
# beside it, so that one environment serves checkouts of any age.
mapfile -t pins < <(tr -d '\r' <"$COMFYUI_PATH/requirements.txt" |
    grep -E '^comfyui-(frontend-package|workflow-templates|embedded-docs)==')
if ! "$PYTHON" - "${pins[@]}" <<'END'; then
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    sys.exit(any(version(name) != wanted for name, _, wanted in (pin.partition("==") for pin in sys.argv[1:])))
except PackageNotFoundError:
    sys.exit(1)
END
    page=$CACHE/page-$(echo "${pins[@]}" | cksum | cut -d ' ' -f 1)
    if [ ! -d "$page" ]; then
        rm -rf "$page.part"
        "$PYTHON" -m pip install --quiet --target "$page.part" "${pins[@]}"
        mv "$page.part" "$page"
    fi
    export PYTHONPATH=$page${PYTHONPATH:+:$PYTHONPATH}
fi

exec "$PYTHON" -m pytest "${@:-tests/comfyui}"
