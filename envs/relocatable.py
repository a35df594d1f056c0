"""Make a virtual environment that may be moved and copied with its folder.

    .venv/bin/python3 envs/relocatable.py .venv

pip writes the environment's full path into the first line of every script in bin/, and `venv` into
the files that activate it. After `mv` of the clone no script would start, and after `cp -r` the
copy's scripts would run the original's sources. Here the scripts find their interpreter beside
themselves, the clone's sources are named relative to the environment, and the files that activate
it are written anew for the place where it is now. That takes a second and downloads nothing.
The same header of scripts is written by uv (`uv venv --relocatable`). Standard library only.
"""

import os
import sys
import venv
from pathlib import Path

PLACE = "place"  # file in the environment: the folder that it was last made ready for
# sh runs the second line; Python reads it as a text, and goes on.
HEADER = """#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python3" "$0" "$@"
' '''
"""


def main(environment: Path) -> None:
    """Rewrite everything in an environment that names its place."""
    for script in sorted((environment / "bin").iterdir()):
        if script.is_file() and not script.is_symlink():
            _free_script(script)
    for packages in environment.glob("lib/python*/site-packages"):
        for file in packages.glob("*.pth"):
            _free_paths(file)
    builder = venv.EnvBuilder(symlinks=True)
    context = builder.ensure_directories(str(environment.resolve()))
    builder.setup_scripts(context)  # activate, for each shell
    (environment / PLACE).write_text(f"{Path.cwd()}\n")


def _free_script(script: Path) -> None:
    """Let a Python script of pip's find its interpreter beside itself."""
    data = script.read_bytes()
    first, _, rest = data.partition(b"\n")
    if first.startswith(b"#!") and b"/bin/python" in first:
        script.write_bytes(HEADER.encode() + rest)
    elif first == b"#!/bin/sh" and rest.startswith(b"'''exec' /"):  # pip's, for a long path
        _, _, rest = rest.partition(b"\n' '''\n")
        script.write_bytes(HEADER.encode() + rest)


def _free_paths(file: Path) -> None:
    """Name the folders of the clone in a `.pth` file relative to it, as `site` reads them."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        lines.append(_relative(line, file.parent) if line.startswith("/") else line)
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _relative(folder: str, packages: Path) -> str:
    """The clone's own `src`, which was in another place when the line was written."""
    own = Path.cwd() / Path(folder).name
    if Path(folder).name != "src" or not own.is_dir():
        return folder
    return os.path.relpath(own.resolve(), packages.resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
