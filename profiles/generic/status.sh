#!/bin/sh
# Says "running", "success" or "failed" of a job of Grid Engine, as Snakemake asks.
# A job that is gone without a word in the accounting has failed: its result counts all the same
# where it is complete.
id=$1

in_queue() { # known | gone | away
  said=$(qstat -j "$id" 2>&1) && echo known && return
  case $said in *"do not exist"*) echo gone ;; *) echo away ;; esac
}

case $(in_queue) in
known)
  # An error state does not end by itself.
  never=
  case $(qstat -u '*' | awk -v id="$id" '$1 == id { print $5; exit }') in
  *E*) never=$(qstat -j "$id" | grep '^error reason') || never="an error state" ;;
  esac
  if [ -n "$never" ]; then
    echo "job $id can never start: $never" >&2
    qdel "$id" >&2
    echo failed
  else
    echo running
  fi
  ;;
away) echo running ;; # a master that does not answer may still have it
gone)
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    if record=$(qacct -j "$id" 2>/dev/null); then
      echo "$record" | awk '$1 == "failed" { f = $2 } $1 == "exit_status" { e = $2 }
        END { print (f == 0 && e == 0) ? "success" : "failed" }'
      exit
    fi
    sleep 1
  done
  echo failed
  ;;
esac
