# To be sourced.

wait_for() { # SECONDS COMMAND…
  local tenths=$(($1 * 10))
  shift
  for _ in $(seq "$tenths"); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "timed out: $*" >&2
  "$@" >&2 || true # what it says
  return 1
}
