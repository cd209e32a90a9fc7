#!/usr/bin/env bash
# Makes FOLDER a virtual environment with llama.cpp's own server, as a package of the index carries it
# for Linux on x86_64 (34 MB, for the CPU). Some seconds. tests/support/llama_server.py starts it.
#   .ci/install_llama_cpp.sh FOLDER
set -euo pipefail
folder=${1:?usage: install_llama_cpp.sh FOLDER}
pin='xllamacpp==2026.10.11549'
sha256=c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261
stamp=installed-${sha256:0:16}

if [ -e "$folder/$stamp" ]; then
  echo "$folder is there already"
  exit 0
fi
"${PYTHON:-python3}" -m venv --clear "$folder"
printf '%s --hash=sha256:%s\n' "$pin" "$sha256" >"$folder/requirements.txt"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --require-hashes --requirement "$folder/requirements.txt"
"$folder/bin/python" -c 'import xllamacpp; print("llama.cpp by xllamacpp", xllamacpp.__version__)'
touch "$folder/$stamp"
