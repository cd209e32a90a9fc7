# What a person reads.


rule report:
    input:
        runs=study.file("runs.parquet"),
        summary=study.file("summary.parquet"),
    output:
        page=report(study.file("report.html"), category="Report"),
    log:
        study.file("logs/report.log"),
    priority: -1
    localrule: True
    conda:
        "../envs/host.yaml"
    params:
        python=study.python,
        script=study.source("scripts/report.py"),
        folder=subpath(output.page, parent=True),
    message:
        "Writing the report"
    shell:
        "exec {params.python:q} {params.script:q} {params.folder:q} > {log:q} 2>&1"
