#!/usr/bin/env bash
# A real Grid Engine on this machine alone, as root: one host, two slots, installed if it is missing.
#
#   start_gridengine.sh
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
host=$(hostname -s) cell=/var/lib/gridengine/default/common

if ! command -v qsub >/dev/null; then
  debconf-set-selections <<ANSWERS
gridengine-client shared/gridenginemaster string $host
gridengine-client shared/gridenginecell string default
gridengine-client shared/gridengineconfig boolean true
ANSWERS
  # Debian starts what it installs, unless this says no: the names have to be right before.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    install -m 755 /dev/stdin /usr/sbin/policy-rc.d <<<$'#!/bin/sh\nexit 101'
  fi
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
    gridengine-master gridengine-exec gridengine-client >/dev/null
fi
echo "$host localhost" >"$cell/host_aliases"
echo "$host" >"$cell/act_qmaster"

source "$(dirname "$(realpath "$0")")/wait_for.sh"

pgrep -x sge_qmaster >/dev/null || /etc/init.d/gridengine-master start
wait_for 60 qconf -sh
qconf -ah "$host" 2>/dev/null || true
qconf -as "$host" 2>/dev/null || true
# Before the execution daemon starts: jobs of root, and a look at the queue every two seconds.
work=$(mktemp -d)
qconf -sconf | sed 's/^min_uid .*/min_uid 0/; s/^min_gid .*/min_gid 0/' >"$work/global"
qconf -Mconf "$work/global" >/dev/null
qconf -ssconf | sed 's/^schedule_interval .*/schedule_interval 0:0:2/' >"$work/scheduler"
qconf -Msconf "$work/scheduler" >/dev/null
pgrep -x sge_execd >/dev/null || /etc/init.d/gridengine-exec start
# GPUs that the scheduler counts.
if ! qconf -sc | grep -q '^gpu '; then
  { qconf -sc; echo 'gpu gpu INT <= YES YES 0 0'; } >"$work/complex"
  qconf -Mc "$work/complex" >/dev/null
fi
qconf -se "$host" | grep -v '^\(load_values\|processors\| \)' |
  sed 's/^complex_values .*/complex_values gpu=2/' >"$work/node"
qconf -Me "$work/node" >/dev/null
printf 'group_name @allhosts\nhostlist %s\n' "$host" >"$work/hosts"
qconf -Ahgrp "$work/hosts" 2>/dev/null || qconf -Mhgrp "$work/hosts" >/dev/null
if ! qconf -sq all.q >/dev/null 2>&1; then
  qconf -sq | sed 's/^qname .*/qname all.q/; s/^hostlist .*/hostlist @allhosts/; s/^slots .*/slots 2/; s/^pe_list .*/pe_list NONE/; s/^load_thresholds .*/load_thresholds NONE/' >"$work/queue"
  qconf -Aq "$work/queue"
fi
rm -r "$work"
wait_for 60 sh -c 'qstat -f | grep -q "all.q@.*lx-amd64 *$"'
qstat -f
