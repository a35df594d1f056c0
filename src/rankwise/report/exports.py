"""A study's results in the files of published systems A and C, so that their scripts can plot them.

The folder is written whole: what an earlier job left in its two subfolders is removed. The README,
written last, says for every file what it holds, in which unit, and how ours differs from theirs.
"""

import shutil
from pathlib import Path

from rankwise.analysis import tables
from rankwise.core import result
from rankwise.report import system_a, system_c

INTRODUCTION = """\
# Results in the layouts of published systems

Generated from the study's tables and runs. To build it again, run

```
{command}
```

A number that we do not have is null, an empty field, or a missing file. It is never guessed.
"""


def exports(request: dict, output: Path) -> None:
    """Write the files of both systems, and the README at `output`.

    They are made from the tables and runs of the results folder above `output`.

    Raises:
        ValueError: A run's result is not the one in the table of runs.
    """
    folder, results = output.parent, output.parents[1]
    frames = {name: tables.read(results / "tables" / f"{name}.csv") for name in request["tables"]}
    for name in ("system_a", "system_c"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    system_a.write(folder / "system_a", frames, request["train_samples"])
    if "runs" in frames:
        system_c.write(folder / "system_c", frames["runs"], results)
    result.write_text(
        output,
        "\n".join(
            [INTRODUCTION.format(command=request["command"]), system_a.README, system_c.README]
        ),
    )
