# What a person reads.


rule report:
    input:
        runs=study.file("runs.parquet"),
        summary=study.file("summary.parquet"),
    output:
        page=study.file("report.html"),
    priority: -1
    params:
        python=study.python,
        script=study.source("scripts/report.py"),
        folder=study.folder,
    message:
        "Writing the report"
    shell:
        "exec {params.python:q} {params.script:q} {params.folder:q}"
