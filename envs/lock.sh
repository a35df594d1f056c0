#!/usr/bin/env bash
# Rewrite the lock files from the *.in files. It needs uv (in dev.lock) and a CPU build of torch, either from a folder of
# wheels (UV_FIND_LINKS=DIR) or from the index of PyTorch (UV_TORCH_BACKEND=cpu).
set -euo pipefail
cd "$(dirname "$0")"
compile="uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links"

rm -f cpu.lock eval.lock report.lock dev.lock docs.lock gpu.lock audit.lock # uv prefers the pins of an existing lock, which would keep the CUDA build of torch
portable() { sed -i.bak 's/^\(torch==[0-9.]*\)+cpu$/\1/' "$1" && rm "$1.bak"; } # remove the local version +cpu, which the package index does not have
$compile --python-version 3.11 cpu.in -o cpu.lock
portable cpu.lock
$compile --python-version 3.11 report.in -c cpu.lock -o report.lock
$compile --python-version 3.11 eval.in -c cpu.lock -c report.lock -o eval.lock
portable eval.lock
$compile --python-version 3.11 dev.in -c eval.lock -c report.lock -o dev.lock
portable dev.lock
$compile --python-version 3.11 docs.in -c eval.lock -c report.lock -c dev.lock -o docs.lock
$compile --python-version 3.11 audit.in -o audit.lock # alone: the tools of make audit have an environment of their own
# gpu.lock is for the image: Python 3.12 of Ubuntu 24.04, CUDA 13 wheels of torch, a hash for every file.
unset UV_FIND_LINKS UV_TORCH_BACKEND
$compile --python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes \
  gpu.in -c eval.lock -c report.lock -o gpu.lock

# For conda users: the same pins. They are written inline, because Snakemake copies this file without the lock files.
{
  echo "# Written by lock.sh from eval.lock and report.lock."
  printf 'name: rankwise\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n'
  sort -u eval.lock report.lock | sed 's/^/      - /'
} >environment.yaml
