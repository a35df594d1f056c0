"""Run inside the image by docker/test.sh: not root, no way out, no build tools, and the packages of the lock."""

import os
import platform
import shutil
import socket
from pathlib import Path

from rankwise.core import environment

LEFT = ("pip", "pip3", "gcc", "cc", "make", "git", "curl")
LOCKS = ("cpu", "report", "dev")


def main() -> None:
    """Exit with what is not as promised."""
    problems = [f"{name} is there" for name in LEFT if shutil.which(name)]
    problems += ["this user is root"] if os.getuid() == 0 else []
    problems += ["there is a network"] if connected() else []
    problems += [
        f"{path} can be written" for path in ("/opt/rankwise", "/usr") if os.access(path, os.W_OK)
    ]
    differs = {lock: environment.differences(Path(f"envs/{lock}.lock")) for lock in LOCKS}
    problems += [f"{lock}.lock: {found}" for lock, found in differs.items() if found]
    if problems:
        raise SystemExit("; ".join(problems))
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    print(
        f"{release}, Python {platform.python_version()}, user {os.getuid()}, {os.cpu_count()} cores, packages as locked"
    )


def connected() -> bool:
    """Whether a packet could leave: a route is all that this asks for, and nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.connect(("192.0.2.1", 9))  # an address for documentation
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
