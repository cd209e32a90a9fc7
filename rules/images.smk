# An image for Apptainer that is neither given nor released is built from containers/, once.


rule image:
    output:
        sif=study.image_pattern,
    log:
        study.file("logs/image-{backend}.log"),
    wildcard_constraints:
        backend="pytorch|vllm|sglang|tensorrt",
    localrule: True
    conda:
        "../envs/host.yaml"
    params:
        python=study.python,
    message:
        "Building the {wildcards.backend} image"
    shell:
        "exec {params.python:q} -P -m llenergymeasure.containers.image_build {wildcards.backend}"
        " --runner apptainer --out {output.sif:q} > {log:q} 2>&1"
