#!/usr/bin/env bash
# Installs Apptainer on Debian 12, which has none: from Debian unstable, with a libc of its own, the
# system's left as it is. As root; about 10 s. The mirror is read from this machine's apt sources.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
prefix=/opt/apptainer-sid

installed() {
  apt-get -qq -o DPkg::Lock::Timeout=300 update &&
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null
}

needed=()
command -v squashfuse >/dev/null || needed+=(squashfuse) # mounts a .sif without root
if command -v apptainer >/dev/null; then
  if [ ${#needed[@]} -gt 0 ] && ! installed "${needed[@]}"; then
    echo "squashfuse cannot be installed: without root Apptainer may mount no .sif file" >&2
  fi
  apptainer --version
  exit 0
fi
installed patchelf squashfs-tools uidmap "${needed[@]}"

mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' \
  /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
if [ -z "$mirror" ]; then
  echo "no Debian mirror in this machine's apt sources" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
state=$work/apt
mkdir -p "$state"/{sources.d,lists/partial,cache/archives/partial}
cat >"$state/sources.d/sid.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
options=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$state/sources.d"
  -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache"
  -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
cd "$work"
apt-get "${options[@]}" download apptainer/sid libc6/sid >/dev/null # both together: unstable moves
mkdir libc
dpkg-deb -x libc6_*.deb libc
dpkg-deb -x apptainer_*.deb /
mkdir -p "$prefix/lib"
cp -a libc/usr/lib/x86_64-linux-gnu/*.so* "$prefix/lib/"
for binary in /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
  patchelf --set-interpreter "$prefix/lib/ld-linux-x86-64.so.2" \
    --set-rpath "$prefix/lib:/usr/lib/x86_64-linux-gnu" "$binary"
done
apptainer --version
