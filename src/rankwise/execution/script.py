"""Run a script of the workflow in a fresh process.

    python -m rankwise.execution.script NAME ARGUMENTS

The scripts lie in the workflow root, which need not be the folder that the workflow runs in. The
command line names the script only, so that it is the same wherever the clone lies: Snakemake
would rerun a job whose command has changed. Most jobs run in `worker_client` instead, which spares
them the time to import libraries.

Standard library only.
"""

import runpy
import sys

from rankwise.core import paths
from rankwise.execution import lifeline


def main(arguments: list[str]) -> None:
    """Run the script as `python SCRIPT ARGUMENTS` would, for as long as its planner runs."""
    lifeline.begin()
    file = paths.script(arguments[0])
    sys.argv = [str(file), *arguments[1:]]
    sys.path[0] = str(file.parent)
    runpy.run_path(str(file), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
