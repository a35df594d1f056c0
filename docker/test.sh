#!/usr/bin/env bash
# Build the image on Debian 12 with the CPU locks. Run the demo and the fast tests in it, without a network and as a user
# other than root. Write docker/test.md (its times are from a shared machine).
# `docker/test.sh demo` skips the tests and writes nothing.
# Debian comes from BASE_IMAGE. If buildah is the only engine, debootstrap builds it (as root).
set -euo pipefail
cd "$(dirname "$0")/.."
source docker/engine.sh

what="${1:-all}"
case "$what" in all | demo) ;; *) echo "docker/test.sh: got $what, allowed: all, demo" >&2 && exit 2 ;; esac
ENGINE="${ENGINE:-$(engine)}"
TAG=localhost/rankwise:test
LOCK="cpu report dev"
export ENGINE TAG LOCK
if [ "$(id -u)" = 0 ]; then RUN_AS=1000:1000; else RUN_AS="$(id -u):$(id -g)"; fi
scratch="$(mktemp -d)"
WORK="$scratch/work"
CONTAINER=""
rows=()
trap '[ -z "$CONTAINER" ] || buildah rm "$CONTAINER" >/dev/null; rm -rf "$scratch"' EXIT

# step NAME COMMAND...: run the command, and record its duration and the last line of its output.
step() {
  local name="$1" start="$SECONDS" log="$scratch/log" line
  shift
  echo "== $name ($(date +%T))"
  "$@" >"$log" 2>&1 & # in the background: inside a condition, bash would not stop a function at its first error
  if ! wait "$!"; then tail -n 60 "$log" && echo "docker/test.sh: $name failed" >&2 && exit 1; fi
  line="$(grep -v '^[[:space:]]*$' "$log" | tail -n 1)"
  echo "$line"
  rows+=("| $name | $((SECONDS - start)) | ${line//|/ } |")
}

debian() {
  local root="$scratch/root" mirror container
  mirror="$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)"
  debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"}
  container="$(buildah from scratch)"
  buildah copy --quiet "$container" "$root" /
  buildah commit --quiet --rm "$container" "$BASE_IMAGE"
  echo "Debian $(cat "$root/etc/debian_version")"
  rm -rf "$root"
}

if [ -z "${BASE_IMAGE:-}" ] && [ "$ENGINE" = buildah ]; then
  export BASE_IMAGE=localhost/rankwise-debian:12
  buildah inspect --type image "$BASE_IMAGE" >/dev/null 2>&1 || step "Debian 12 by debootstrap" debian
fi
export BASE_IMAGE="${BASE_IMAGE:-docker.io/library/debian:12-slim}"
step "image from docker/Dockerfile" docker/build.sh

mkdir "$WORK"
git archive HEAD | tar -x -C "$WORK"
if [ "$(id -u)" = 0 ]; then chown -R "$RUN_AS" "$scratch" && chmod 755 "$scratch"; fi
if [ "$ENGINE" = buildah ]; then CONTAINER="$(buildah from --pull-never "$TAG")"; fi

step "entry point" inside snakemake --version
step "who and where" inside python tests/image/inside.py
step "rankwise" inside rankwise methods --model distilbert --rank 8
step "the demo" inside snakemake --configfile config/demo.yaml --cores all
nothing() { inside snakemake --configfile config/demo.yaml --cores all -n && grep -q "Nothing to be done" "$scratch/log"; }
step "the demo again" nothing
if [ -d results/store/runs ]; then step "results built here and inside" python3 tests/image/same.py results "$WORK/results"; fi
if [ "$what" = demo ]; then exit; fi
step "the fast tests" inside pytest -q -n auto -m "not slow" -p no:cacheprovider
{
  echo "The image of docker/Dockerfile on Debian 12 with the locks $LOCK, by $ENGINE. Inside: user $RUN_AS, no network. Written by"
  printf 'docker/test.sh; seconds of a shared machine with %s cores.\n\n' "$(nproc)"
  printf '| step | s | last line |\n| --- | ---: | --- |\n'
  printf '%s\n' "${rows[@]}"
} >docker/test.md
cat docker/test.md
