#!/usr/bin/env bash
# Makes FOLDER a folder of packages with lm-eval and what it needs; tests/run/test_quality.py puts it
# behind what is installed, so that nothing of the environment is another release by it.
#   .ci/install_lm_eval.sh FOLDER
set -euo pipefail
folder=${1:?usage: install_lm_eval.sh FOLDER}
pin='lm-eval==0.4.13'
stamp=installed-${pin//==/-}

if [ -e "$folder/$stamp" ]; then
  echo "$folder is there already"
  exit 0
fi
rm -rf "$folder"
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts \
  --constraint "$(dirname "$0")/../envs/constraints.txt" --target "$folder" "$pin"
touch "$folder/$stamp"
