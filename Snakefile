# LLenergyMeasure: one job per experiment and cycle, then tables and a report.
# `snakemake` runs config/config.yaml, `snakemake --configfile STUDY.yaml` another study.
from snakemake.utils import min_version

from llenergymeasure.workflow.open_study import open_study

min_version("9.27")

study = open_study(workflow, config)


wildcard_constraints:
    experiment="[0-9a-f]{12}",
    cycle="[1-9][0-9]*",


rule all:
    default_target: True
    input:
        study.results(),
        study.tables(),
        study.file("report.html"),
    localrule: True


include: "rules/images.smk"
include: "rules/measure.smk"
include: "rules/aggregate.smk"
include: "rules/report.smk"


onstart:
    study.begin()


onsuccess:
    study.end(log)


onerror:
    study.end(log)
