#!/bin/sh
# Install the packages of the given locks ("cpu report" or "gpu") into /opt/rankwise. docker/Dockerfile and
# docker/apptainer.def both run this script. It expects the locks in its own folder. Build tools are removed at the end.
set -eu
cd "$(dirname "$0")"
root=/opt/rankwise

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-pip >/dev/null

python3 -m venv --without-pip "$root"
pip() {
  python3 -m pip --python "$root/bin/python" --disable-pip-version-check --no-cache-dir "$@"
}
hashes=""
for lock in "$@"; do
  if grep -q -e --hash= "$lock.lock"; then hashes=--require-hashes; fi
  echo "-r $lock.lock" >>locks.txt
done
# Some packages are source distributions. Build them with the setuptools of the lock, because pip would otherwise download
# a newer one that no lock pins.
awk '/^setuptools==/ {on = 1} on {print} on && !/\\$/ {exit}' "$1.lock" >setuptools.txt
# shellcheck disable=SC2086 # none or one
pip install --quiet $hashes -r setuptools.txt
# shellcheck disable=SC2086
pip install --quiet $hashes --use-pep517 --no-build-isolation -r locks.txt
pip check

# The image label names the digest of the locks. Stop if it is not the digest of the locks that were installed.
found=$("$root/bin/python" - "$@" <<'PYTHON'
import pathlib
import sys

from lock import lock_digest

print(*(lock_digest(pathlib.Path(f"{name}.lock")) for name in sys.argv[1:]))
PYTHON
)
if [ "${LOCK_DIGEST:-unknown}" != unknown ] && [ "$LOCK_DIGEST" != "$found" ]; then
  echo "LOCK_DIGEST: got $LOCK_DIGEST, allowed: $found, the digest of $*" >&2
  exit 1
fi

# `rankwise` and every other program in the image import the sources of the clone mounted at /work.
echo /work/src >"$(echo "$root"/lib/python3.*/site-packages)/rankwise.pth"
printf '#!/bin/sh\nexec %s/bin/python -m rankwise.cli.main "$@"\n' "$root" >"$root/bin/rankwise"
chmod 755 "$root/bin/rankwise"
mkdir -p /work /home/rankwise
chmod 1777 /home/rankwise

apt-get purge -y -qq --auto-remove python3-pip >/dev/null
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
