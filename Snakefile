"""Rankwise: from one study to its runs, profiles, tables, figures and page. The table of contents; the work is in rules/."""

from snakemake.utils import min_version

min_version("9.27")

if "question" not in config:  # no --configfile: the paper study

    configfile: "config/config.yaml"


include: "rules/common.smk"


container: IMAGE


include: "rules/prepare.smk"
include: "rules/search.smk"
include: "rules/train.smk"
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
        outputs.REPORT,


onstart:
    check_machine()
