#!/usr/bin/env bash
# Puts axe.min.js, which judges whether a page can be used by everybody, into FOLDER, as a package of
# the index carries it. tests/report/test_browser.py has Chromium run it.
#   .ci/install_axe.sh FOLDER
set -euo pipefail
folder=${1:?usage: install_axe.sh FOLDER}
pin='axe-playwright-python==0.1.8'
sha256=fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8

if [ -e "$folder/axe.min.js" ]; then
  echo "$folder is there already"
  exit 0
fi
mkdir -p "$folder"
printf '%s --hash=sha256:%s\n' "$pin" "$sha256" >"$folder/requirements.txt"
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
  --only-binary :all: --require-hashes --dest "$folder" --requirement "$folder/requirements.txt"
"${PYTHON:-python3}" -m zipfile --extract "$folder"/axe_playwright_python-*.whl "$folder"
mv "$folder/axe_playwright_python/axe.min.js" "$folder"
