# The runs' own Parquet merged into one row a run, then one row an experiment.


rule summary:
    input:
        plan=study.plan_file,
        results=study.results(),
    output:
        runs=study.file("runs.parquet"),
        summary=study.file("summary.parquet"),
        csv=study.file("summary.csv"),
    priority: -1
    params:
        python=study.python,
        script=study.source("scripts/aggregate.py"),
        folder=study.folder,
    message:
        "Merging the runs' tables"
    shell:
        "exec {params.python:q} {params.script:q} {params.folder:q}"
