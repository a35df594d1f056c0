#!/usr/bin/env bash
# Ends the cluster that up.sh made in DIR: the daemons by their pid files, and every process that has TEST_CLUSTER=DIR in its
# environment, for what a job has started outlives a lost node.
dir=${1:?the folder given to up.sh}
[ "$(readlink /etc/slurm/slurm.conf)" = "$dir/slurm.conf" ] && rm /etc/slurm/slurm.conf

ours() {
  cat "$dir"/slurmd-n?.pid "$dir"/slurmctld.pid "$dir"/slurmdbd.pid "$dir"/data.pid "$dir"/munge/pid 2>/dev/null
  grep --files-with-matches --null-data --no-messages --line-regexp "TEST_CLUSTER=$dir" /proc/[0-9]*/environ | cut -d/ -f3
}
alive() {
  for pid in "$@"; do
    [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null && return 0
  done
  return 1
}
for signal in TERM KILL; do
  mapfile -t pids < <(ours)
  ((${#pids[@]})) && kill -s $signal "${pids[@]}" 2>/dev/null
  for _ in $(seq 100); do
    alive "${pids[@]}" || break
    sleep 0.1
  done
done
