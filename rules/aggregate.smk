# The runs' own Parquet merged into one row a run, then one row an experiment, then what relates
# experiments to each other.


rule summary:
    input:
        plan=study.plan_input(),
        results=study.merged,
    output:
        report(study.tables(".csv"), category="Tables"),
        study.tables(".parquet"),
    log:
        study.file("logs/summary.log"),
    priority: -1
    localrule: True
    conda:
        "../envs/host.yaml"
    params:
        python=study.python,
        script=study.source("scripts/aggregate.py"),
        folder=subpath(output[0], parent=True),
    message:
        "Merging the runs' tables"
    shell:
        "exec {params.python:q} {params.script:q} {params.folder:q} > {log:q} 2>&1"
