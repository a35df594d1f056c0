"""A study's results as the files that users of published systems A and C know, so that their plotting scripts run on them.

The folder is written whole: what another study left under its two subfolders goes. The README, written last, says for every
file what it is, its unit, and where ours differs.
"""

import shutil
from pathlib import Path

from rankwise.analysis import tables
from rankwise.core import result
from rankwise.report import system_a, system_c

INTRODUCTION = """\
# Results in the layouts of published systems

Generated from `results/tables` and `results/runs`; made anew, and what another study left here removed, by

```
snakemake results/exports/README.md
```

A number that we do not have is null, an empty field, or a file that is not there. It is never guessed.
"""


def exports(request: dict, output: Path) -> None:
    """Write both systems' files beside the README at `output`, from the tables and runs of the study's results folder.

    Raises:
        ValueError: a run's result is not the one in the table of runs.
    """
    folder, results = output.parent, output.parents[1]
    frames = {name: tables.read(results / "tables" / f"{name}.csv") for name in request["tables"]}
    for name in ("system_a", "system_c"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    system_a.write(folder / "system_a", frames, request["train_samples"])
    if "runs" in frames:
        system_c.write(folder / "system_c", frames["runs"], results)
    result.write_text(output, "\n".join([INTRODUCTION, system_a.README, system_c.README]))
