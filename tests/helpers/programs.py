"""Programs that stand in for a machine's own, such as nvidia-smi, docker and sinfo."""

from pathlib import Path

HANG = "/bin/sleep 300"  # what a program does that never answers


def stand_ins(folder: Path, **scripts: str) -> str:
    """Make the only programs that there are, and return the PATH to them.

    Args:
        folder: Where to put them.
        scripts: Name of a program (with _ for -) -> the shell script that it is.
    """
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return str(folder)
