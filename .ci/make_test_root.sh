#!/usr/bin/env bash
# Makes FOLDER a root file system that stands in for an engine's official image where there is no
# registry: Debian with Python, and the packages of the requirement file if one is given.
# As root; about 3 minutes with envs/pytorch.txt. The mirror and pip's settings are this machine's own.
#   .ci/make_test_root.sh FOLDER [REQUIREMENTS]
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
root=${1:?usage: make_test_root.sh FOLDER [REQUIREMENTS]}
requirements=${2:-}
python=${PYTHON:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}

if [ -d "$root" ]; then
  echo "$root is there already"
  exit 0
fi

if ! command -v mmdebstrap >/dev/null; then
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends mmdebstrap >/dev/null
fi
mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' \
  /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
if [ -z "$mirror" ]; then
  echo "no Debian mirror in this machine's apt sources" >&2
  exit 1
fi
umask 022
mkdir -p "$(dirname "$root")"
# python3-minimal would have no ctypes; libgomp1 is torch's.
mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,libgomp1,ca-certificates \
  bookworm "$root.part" "$mirror"
if [ -n "$requirements" ]; then
  # By the host's pip, which knows this machine's package index; both are Python 3.11.
  packages=$root.part/usr/local/lib/python3.11/dist-packages
  "$python" -m pip install --quiet --no-compile --target "$packages" --requirement "$requirements"
  chroot "$root.part" python3 -m compileall -q /usr/local/lib/python3.11/dist-packages >/dev/null || true
fi
# Half of the files are packages' own tests, headers and manuals: images without them are made and
# removed in half the time.
find "$root.part/usr/local/lib" -depth -type d \( -name tests -o -path '*/torch/include' -o -path '*/torch/test' \) -exec rm -rf {} +
rm -rf "$root.part"/usr/share/{doc,man,locale}
mv "$root.part" "$root"
