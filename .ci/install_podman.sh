#!/usr/bin/env bash
# Installs Podman with runc on Debian 12. As root; about 10 s.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

if ! command -v podman >/dev/null || ! command -v runc >/dev/null; then
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends podman runc >/dev/null
fi
podman --version
