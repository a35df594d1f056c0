#!/usr/bin/env bash
# Build docker/Dockerfile with docker, podman or buildah, whichever is installed.
#   docker/build.sh                                                            localhost/rankwise:gpu, from envs/gpu.lock
#   BASE_IMAGE=docker.io/library/debian:12 LOCK="cpu report" TAG=localhost/rankwise:cpu docker/build.sh      without CUDA
# pip in the build uses the pip settings of this machine (pip config, PIP_* variables). With docker, folders that these
# settings name are not visible.
set -euo pipefail
cd "$(dirname "$0")/.."
source docker/engine.sh

ENGINE="${ENGINE:-$(engine)}"
LOCK="${LOCK:-gpu}"
TAG="${TAG:-localhost/rankwise:${LOCK%% *}}"
revision="$(git rev-parse HEAD 2>/dev/null || echo unknown)"
if [ -n "$(git status --porcelain -- docker envs src/rankwise/core/lock.py 2>/dev/null)" ]; then revision="$revision-changed"; fi
read -ra locks <<<"$LOCK"
digests="$(PYTHONPATH=src python3 -B -c 'import sys, pathlib
from rankwise.core.lock import lock_digest
print(*(lock_digest(pathlib.Path(f"envs/{name}.lock")) for name in sys.argv[1:]))' "${locks[@]}")"

secrets="$(mktemp -d)"
trap 'rm -r "$secrets"' EXIT
folders="$(pip_settings "$secrets")"
options=(--file docker/Dockerfile --tag "$TAG"
  --build-arg "LOCK=$LOCK" --build-arg "LOCK_DIGEST=$digests" --build-arg "REVISION=$revision"
  --secret "id=pip,src=$secrets/pip.conf" --secret "id=certificates,src=$secrets/certificates.crt")
if [ -n "${BASE_IMAGE:-}" ]; then options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE"); fi
if [ "$ENGINE" = docker ]; then
  [ -z "$folders" ] || echo "docker/build.sh: pip's settings name folders of this machine, which docker's build does not see" >&2
  docker build "${options[@]}" .
else
  for folder in $folders; do options+=(--volume "$folder:$folder:ro"); done
  if [ "$ENGINE" = buildah ]; then options+=(--isolation chroot --network host --layers=false); fi
  "$ENGINE" build "${options[@]}" .
fi
echo "$TAG: lock $LOCK ($digests), revision $revision"
