#!/usr/bin/env bash
# Ends the cluster that start_slurm.sh started from FOLDER: the daemons of its pid files, no others.
set -euo pipefail
folder=$(realpath "${1:?usage: stop_slurm.sh FOLDER}")
shopt -s nullglob
for file in "$folder"/run/slurmd.*.pid "$folder"/run/slurmctld.pid "$folder"/run/munged.pid; do
  pid=$(cat "$file" 2>/dev/null) || continue # it ended by itself meanwhile
  rm -f "$file"
  kill "$pid" 2>/dev/null || continue
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
done
for name in slurm gres cgroup; do
  link=/etc/slurm/$name.conf
  [ "$(readlink "$link" || true)" != "$folder/etc/$name.conf" ] || rm -f "$link"
done
