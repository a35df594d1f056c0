"""results/artifact.md: a reproducibility checklist and an artifact appendix, filled from a study's records.

What no record holds is `not recorded`.
"""

from pathlib import Path

from rankwise.analysis import tables
from rankwise.core import result
from rankwise.report.appendix import appendix
from rankwise.report.checklist import checklist
from rankwise.report.records import Records
from rankwise.study.plan import Plan

HEAD = """\
# Artifact of the study {name}

> {question}

Made by `{command}` from `{file}`, `config/` and the records in `results/`. What no record holds is "not recorded".
"""


def artifact(request: dict, output: Path) -> None:
    """Write the page from the results of `request["study"]`.

    Raises:
        ValueError: the configuration or a source changed since the workflow was planned.
        StaleResult: a result answers another request than the planned one.
    """
    plan = Plan(request["study"], Path.cwd(), request["file"])
    if {name: plan.digest(name) for name in request["planned"]} != request["planned"]:
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    frames = {Path(name).stem: tables.read(Path.cwd() / name) for name in request["tables"]}
    result.write_text(output, page(Records(request, plan, Path.cwd(), frames)))


def page(found: Records) -> str:
    """The whole text, Markdown."""
    study, command = found.plan.study, found.request["commands"]["page"]
    head = HEAD.format(
        name=study["name"], question=study["question"], command=command, file=found.plan.file
    )
    return "\n".join([head, *checklist(found), *appendix(found)]).rstrip() + "\n"
