"""artifact.md: a reproducibility checklist and an artifact appendix.

Both are filled from the records of a study. What no record holds is "not recorded".
"""

from pathlib import Path

from rankwise.analysis import tables
from rankwise.core import result
from rankwise.report.appendix import appendix
from rankwise.report.checklist import checklist
from rankwise.report.records import UNKNOWN, Records
from rankwise.study import text_outputs
from rankwise.study.partial import replanned, sentences
from rankwise.study.plan import Plan

HEAD = """\
# Artifact of the study {name}

> {question}

Made by `{command}` from `{file}`, `config/` and the records in `{results}/`.
What no record holds is "{unknown}".
"""


def artifact(request: dict, output: Path) -> None:
    """Write the page from the results of `request["study"]`.

    Raises:
        StoreError: A result answers another request than the planned one.
    """
    root = Path.cwd()  # the folder of the study: configuration and results
    plan = replanned(Plan(request["study"], root, request["file"]), request)
    if not set(text_outputs.results(plan)) <= set(request["reads"]):
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    frames = {Path(name).stem: tables.read(root / name) for name in request["tables"]}
    text = page(Records(request, plan, root, frames))
    if "absent" in request:
        text = "\n".join(
            [text, "## Results that are absent", "", *sentences(request["absent"]), ""]
        )
    result.write_text(output, text)


def page(records: Records) -> str:
    """The whole page, as Markdown."""
    study = records.plan.study
    head = HEAD.format(
        name=study["name"],
        question=study["question"],
        command=records.request["commands"]["page"],
        file=records.plan.file,
        results=records.plan.results,
        unknown=UNKNOWN,
    )
    return "\n".join([head, *checklist(records), *appendix(records)]).rstrip() + "\n"
