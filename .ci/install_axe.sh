#!/usr/bin/env bash
# Puts axe.min.js, which judges whether a page can be used by everybody, into FOLDER, as a package of
# the index carries it. tests/report/test_browser.py has Chromium run it.
#   .ci/install_axe.sh FOLDER
set -euo pipefail
folder=${1:?usage: install_axe.sh FOLDER}
pin='axe-playwright-python==0.1.8'

if [ -e "$folder/axe.min.js" ]; then
  echo "$folder is there already"
  exit 0
fi
mkdir -p "$folder"
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
  --only-binary :all: --dest "$folder" "$pin"
"${PYTHON:-python3}" -m zipfile --extract "$folder"/axe_playwright_python-*.whl "$folder"
mv "$folder/axe_playwright_python/axe.min.js" "$folder"
