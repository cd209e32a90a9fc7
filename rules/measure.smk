# One run: an engine in its own process, its energy beside it.
# No inputs but an ancient() image: a touched plan or script must not re-measure what was paid for.
# The record is written last and vouches for the files beside it, so it alone is asked for; a
# storage is given all that a run leaves.


rule measure:
    input:
        image=study.image(),
    output:
        study.run_files(),
        result=study.run_file("result.json"),
    log:
        study.run_logs(),
        outcome=study.run_file("outcome.json"),
    priority: lambda wildcards: study.priority(wildcards.experiment, wildcards.cycle)
    container:
        study.container()
    threads: study.threads()
    resources:
        **study.resources(),
    params:
        start=study.start(),
    shell:
        "result={output.result:q}; {params.start}"
        ' --run {wildcards.experiment}/{wildcards.cycle} --out "${{result%/*}}"'
