"""Rankwise: from one study to its runs, profiles, tables, figures and page.

This file is the table of contents; each file in rules/ makes one kind of output. It can be used
as it is, or as a module of another repository's Snakefile.
"""

from snakemake.utils import min_version

min_version("9.27")

if "question" not in config:  # no --configfile: the paper study

    configfile: str(workflow.current_basedir.join("config/config.yaml").get_path_or_uri(False))


include: "rules/common.smk"


container: IMAGE


include: "rules/prepare.smk"
include: "rules/search.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/profile.smk"
include: "rules/collect.smk"
include: "rules/tables.smk"
include: "rules/claims.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/exports.smk"
include: "rules/records.smk"
include: "rules/cluster.smk"


rule all:
    default_target: True
    input:
        "<results>/report.html",


snakemake_adapter.on_start(workflow, check_machine)
snakemake_adapter.answer_signals(workflow)
snakemake_adapter.on_error(workflow, report_what_is_there)
