# One run: an engine in its own process, its energy beside it.
# No inputs but ancient() ones: a touched plan or script must not re-measure what was paid for.


rule measure:
    input:
        plan=ancient(study.plan_file),
        image=lambda wildcards: ancient(study.image(wildcards.experiment)),
    output:
        result=study.run_file("result.json"),
        row=study.run_file("run.parquet"),
        samples=study.run_file("samples.parquet"),
        requests=study.run_file("requests.parquet"),
    log:
        outcome=study.run_file("outcome.json"),
    priority: lambda wildcards: study.priority(wildcards.experiment, wildcards.cycle)
    container:
        study.container
    threads: workflow.cores or 1
    resources:
        gpu=1,
    params:
        command=lambda wildcards: study.command(wildcards.experiment),
        folder=lambda wildcards: study.run_folder(wildcards.experiment, wildcards.cycle),
        watch=study.main_pid,
    message:
        "{wildcards.experiment}/{wildcards.cycle}"
    shell:
        "exec {params.command:q} --spec {input.plan:q}"
        " --run {wildcards.experiment}/{wildcards.cycle} --out {params.folder:q}"
        " --watch {params.watch}"
