#!/usr/bin/env bash
# Run SGLang for real, on a CPU: makes an environment of its own and runs the tests beside this in it.
#   tests/sglang_real/run.sh [FOLDER]      FOLDER keeps the environment; default build/sglang-cpu
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/sglang_real
folder=${1:-$root/build/sglang-cpu}
python=${PYTHON:-python3.11}
sglang=0.5.23
torchvision=0.28.0

if [ ! -e "$folder/ready" ]; then
  rm -rf "$folder"
  "$python" -m venv "$folder"
  pip() { "$folder/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
  pip install --requirement "$root/envs/sglang-cpu.txt"
  # Both name a torch built with CUDA as a need; neither uses it here.
  pip install --no-deps "sglang==$sglang" "torchvision==$torchvision"
  site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cp -r "$here/site/." "$site/"
  echo 'import llem_torchvision_ops  # noqa: E402, F401' >> "$site/torchvision/extension.py"
  touch "$folder/ready"
fi

cd "$root"
# Warnings of SGLang and of what it imports are theirs.
exec env PYTHONPATH="$root/src" HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore \
  "$folder/bin/python" -m pytest -W ignore --override-ini 'timeout=900' -rA "$here"
