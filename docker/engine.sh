# shellcheck shell=bash
# Sourced by build.sh and test.sh: build an image and run commands in it with any of three engines.

# Print the engine to use: docker or podman if its service answers, otherwise buildah, which needs neither a service nor
# namespaces of its own.
engine() {
  local one
  for one in docker podman; do
    if command -v "$one" >/dev/null && "$one" info >/dev/null 2>&1; then echo "$one" && return; fi
  done
  if command -v buildah >/dev/null; then echo buildah && return; fi
  echo "no engine: allowed are docker or podman that runs, or buildah (Debian's package buildah)" >&2
  return 1
}

# Write the pip settings of this machine to $1/pip.conf and $1/certificates.crt for the build, and print the folders that
# these settings name.
pip_settings() {
  python3 - "$1" <<'PYTHON'
import ast
import pathlib
import shutil
import subprocess
import sys
import urllib.parse

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
pairs = [line.split("=", 1) for line in listed.splitlines()]
pairs.sort(key=lambda pair: pair[0].startswith(":env:"))  # environment variables override configuration files
found = {key.rpartition(".")[2]: ast.literal_eval(value) for key, value in pairs}
target = pathlib.Path(sys.argv[1])
(target / "certificates.crt").touch()
found.pop("constraint", None)  # names a file of this machine; the locks already pin every version
if "cert" in found:
    shutil.copy(found["cert"], target / "certificates.crt")
    found["cert"] = "/run/secrets/certificates"
(target / "pip.conf").write_text("".join(["[global]\n", *(f"{key} = {' '.join(value.split())}\n" for key, value in found.items())]))
folders = []
for key in ("find-links", "index-url", "extra-index-url"):
    local = [word for word in found.get(key, "").split() if word.startswith(("/", "file:"))]
    paths = [pathlib.Path(urllib.parse.urlparse(word).path) for word in local]
    folders += paths if key == "find-links" else [path.parent for path in paths]  # a local index keeps its packages next to its pages
for folder in dict.fromkeys(folders):
    if folder.is_dir():
        print(folder)
PYTHON
}

# Run a command in the image $TAG without a network, as user $RUN_AS, with the folder $WORK mounted at /work.
inside() {
  if [ "$ENGINE" = buildah ]; then
    # Isolation by chroot shares the network of the caller, so run buildah in a network namespace without a connection.
    unshare --net sh -c 'ip link set lo up 2>/dev/null; exec "$@"' - \
      buildah run --isolation chroot --user "$RUN_AS" --volume "$WORK:/work" "$CONTAINER" -- "$@"
  else
    "$ENGINE" run --rm --init --network none --user "$RUN_AS" --volume "$WORK:/work" --entrypoint "$1" "$TAG" "${@:2}"
  fi
}
