"""Studies that cannot be used, and what the message about each must hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bad:
    """A study, and what its message must hold beside the file's name."""

    name: str
    text: str | bytes
    said: tuple[str, ...]
    line: int | None = None


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [1, 2, 3, 4]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def map_bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for n in range(1, levels):
        inner = ", ".join(f"k{i}: *a{n - 1}" for i in range(width))
        lines.append(f"a{n}: &a{n} {{{inner}}}")
    return "\n".join(lines)


def merge_bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for n in range(1, levels):
        inner = ", ".join([f"*a{n - 1}"] * width)
        lines.append(f"a{n}: &a{n} {{<<: [{inner}]}}")
    return "\n".join(lines)


MODEL = "model: tiny-llama\n"

CASES = [
    # Unknown keys, at each level.
    Bad("top-level key", MODEL + "precison: bf16\n", ("precison", "did you mean precision?"), 2),
    Bad("former name", "model_name: gpt2\n", ("model_name", "did you mean model?", "gpt2"), 1),
    Bad("study key", MODEL + "runner: {pytorch: local}\n", ("runner", "runners"), 2),
    Bad("key of another place", MODEL + "batch_size: 8\n", ("batch_size", "pytorch.batch_size"), 2),
    Bad(
        "key in a section",
        MODEL + "decoder:\n  temprature: 1\n",
        ("decoder.temprature", "decoder.temperature"),
        3,
    ),
    Bad(
        "key in a nested section",
        MODEL + "backend: vllm\nvllm:\n  engine:\n    enforce_eagre: true\n",
        ("vllm.engine.enforce_eagre", "vllm.engine.enforce_eager"),
        5,
    ),
    Bad(
        "key three deep",
        MODEL + "backend: vllm\nvllm: {engine: {attention: {backnd: X}}}\n",
        ("vllm.engine.attention.backnd", "vllm.engine.attention.backend"),
    ),
    Bad("key in the data set", MODEL + "dataset: {n: 4, length: 3}\n", ("dataset.length", "known")),
    Bad(
        "key in execution",
        MODEL + "execution:\n  cycles: 3\n",
        ("execution.cycles", "n_cycles"),
        3,
    ),
    Bad(
        "key in an experiment",
        MODEL + "experiments:\n  - precision: fp16\n  - precisio: fp16\n",
        ("experiments[1].precisio", "precision"),
        4,
    ),
    Bad("key in the sweep", MODEL + "sweep: {precsion: [fp16]}\n", ("sweep.precsion", "precision")),
    Bad(
        "dotted key in the sweep",
        MODEL + "sweep: {pytorch.batchsize: [1]}\n",
        ("sweep.pytorch.batchsize", "pytorch.batch_size"),
    ),
    Bad(
        "key in a group",
        MODEL + "sweep: {size: [{pytorch.batch_sise: 1}]}\n",
        ("sweep.size[0].pytorch.batch_sise", "pytorch.batch_size"),
    ),
    Bad(
        "key in a swept section",
        MODEL + "sweep: {decoder: [{top_pp: 1}]}\n",
        ("sweep.decoder[0].top_pp", "decoder.top_p"),
    ),
    Bad(
        "a group that is a misspelling",
        MODEL + "sweep: {datset: [{n: 1}]}\n",
        ("datset", "dataset"),
    ),
    Bad("dotted key outside the sweep", MODEL + "decoder.top_k: 3\n", ("decoder.top_k", "nested")),
    # Types.
    Bad("number as text", MODEL + 'n: "16"\n', ("n:", "whole number, without quotes", '"16"'), 2),
    Bad("boolean as number", MODEL + "n: true\n", ("n:", "whole number", "true")),
    Bad("fraction as whole number", MODEL + "n: 1.5\n", ("n:", "whole number", "1.5")),
    Bad("text as boolean", MODEL + "decoder: {do_sample: maybe}\n", ("do_sample", "true or false")),
    Bad("number as boolean", MODEL + "decoder: {do_sample: 1}\n", ("do_sample", "true or false")),
    Bad("list as model", "model: [a, b]\n", ("model", "must be text", '["a", "b"]'), 1),
    Bad("boolean as text", MODEL + "name: false\n", ("name", "needs quotes", "false"), 2),
    Bad("number as model", "model: 7\n", ("model", "in quotes", "7")),
    Bad("section as number", MODEL + "decoder: 5\n", ("decoder", "must be a mapping", "5"), 2),
    Bad("section as list", MODEL + "warmup: [1]\n", ("warmup", "must be a mapping", "[1]")),
    Bad("data set as number", MODEL + "dataset: 5\n", ("dataset", "must be text", "mapping", "5")),
    Bad("boolean as precision", MODEL + "precision: off\n", ("precision", "fp32", "off")),
    Bad("zero-led number", MODEL + "n: 010\n", ("n:", "whole number", '"010"')),
    Bad("date as number", MODEL + "n: 2024-01-02\n", ("n:", "whole number", "2024-01-02")),
    Bad("time as number", MODEL + "n: 1:30\n", ("n:", "whole number", "1:30")),
    # Bounds.
    Bad("n of 0", MODEL + "n: 0\n", ("n:", "at least 1", "0"), 2),
    Bad("negative n", MODEL + "n: -3\n", ("n:", "at least 1", "-3")),
    Bad("huge n", MODEL + f"n: {10**30}\n", ("n:", "at most", "1000000")),
    Bad("number too long to read", MODEL + f"n: {'9' * 5000}\n", ("n:", "no number", "9999")),
    Bad("hot", MODEL + "decoder: {temperature: 3}\n", ("decoder.temperature", "at most 2", "3")),
    Bad("top_p", MODEL + "decoder: {top_p: 1.5}\n", ("decoder.top_p", "at least 0", "at most 1")),
    Bad("min_p", MODEL + "decoder: {min_p: -1}\n", ("decoder.min_p", "at least 0")),
    Bad("penalty", MODEL + "decoder: {repetition_penalty: 0}\n", ("penalty", "at least 0.1")),
    Bad(
        "short idle",
        MODEL + "baseline: {duration_seconds: 1}\n",
        ("duration_seconds", "at least 5"),
    ),
    Bad("cv", MODEL + "warmup: {cv_threshold: 0.9}\n", ("warmup.cv_threshold", "at most 0.5")),
    Bad("window", MODEL + "window: {min_seconds: 0}\n", ("window.min_seconds", "more than 0")),
    Bad(
        "memory share",
        MODEL + "backend: vllm\nvllm: {engine: {gpu_memory_utilization: 1.5}}\n",
        ("vllm.engine.gpu_memory_utilization", "at most 1", "1.5"),
    ),
    Bad(
        "negative cycles",
        MODEL + "execution: {n_cycles: -1}\n",
        ("execution.n_cycles", "at least 1"),
    ),
    Bad(
        "no cycles", MODEL + "execution: {n_cycles: 0}\n", ("execution.n_cycles", "at least 1", "0")
    ),
    Bad(
        "negative gap",
        MODEL + "execution: {cycle_gap_seconds: -1}\n",
        ("execution.cycle_gap_seconds", "at least 0", "-1"),
    ),
    Bad(
        "not a number", MODEL + "decoder: {temperature: .nan}\n", ("temperature", "finite", ".nan")
    ),
    Bad("infinite", MODEL + "decoder: {temperature: -.inf}\n", ("temperature", "finite", "-.inf")),
    Bad(
        "overflow",
        MODEL + "decoder: {temperature: 1.0e999}\n",
        ("temperature", "finite", "1.0e999"),
    ),
    # Choices.
    Bad("precision", MODEL + "precision: bf61\n", ("precision", "bf16", "bf61", "did you mean")),
    Bad("backend", MODEL + "backend: vlm\n", ("backend", "did you mean vllm?", "vlm"), 2),
    Bad("backend in a list", MODEL + "backend: [pytorch, vlm]\n", ("backend[1]", "vllm", "vlm")),
    Bad("no backend", MODEL + "backend: []\n", ("backend", "at least one", "[]")),
    Bad("protocol", MODEL + "protocol: publish\n", ("protocol", "publication", "publish")),
    Bad(
        "order", MODEL + "execution: {cycle_order: random}\n", ("cycle_order", "shuffled", "random")
    ),
    Bad("energy", MODEL + "energy: {backend: nvlm}\n", ("energy.backend", "did you mean nvml?")),
    # What does not fit together.
    Bad("no model", "n: 4\n", ("model", "missing")),
    Bad("null model", "model:\n", ("model", "missing")),
    Bad("empty model", 'model: ""\n', ("model", "must not be empty", '""')),
    Bad(
        "missing model folder", "model: ./no/such/model\n", ("model", "no such", "./no/such/model")
    ),
    Bad("missing data file", MODEL + "dataset: gone.jsonl\n", ("dataset", "no such", "gone.jsonl")),
    Bad(
        "4 and 8 bits",
        MODEL + "pytorch: {load_in_4bit: true, load_in_8bit: true}\n",
        ("pytorch", "exclude each other"),
    ),
    Bad(
        "compile mode alone",
        MODEL + "pytorch: {torch_compile_mode: default}\n",
        ("pytorch", "needs torch_compile: true"),
    ),
    Bad("two adapters", MODEL + "lora: {adapter_id: a, adapter_path: b}\n", ("lora", "only one")),
    Bad("no adapter", MODEL + "lora: {merge_weights: true}\n", ("lora", "adapter_id")),
    Bad(
        "hidden setting",
        MODEL + "passthrough_kwargs: {precision: fp16}\n",
        ("passthrough_kwargs", "precision", "top level"),
    ),
    Bad(
        "section of an unused backend",
        MODEL + "vllm: {engine: {max_num_seqs: 4}}\n",
        ("vllm", "set backend: vllm"),
        2,
    ),
    Bad("server unnamed", MODEL + "backend: openai\n", ("openai.base_url",)),
    Bad(
        "server elsewhere",
        MODEL + "backend: openai\nopenai: {base_url: http://example.com/v1}\n",
        ("openai.base_url", "on this machine", "example.com"),
    ),
    Bad(
        "server with a secret",
        MODEL + "backend: openai\nopenai: {base_url: 'http://u:p@localhost/v1'}\n",
        ("openai.base_url", "api_key_env"),
    ),
    # The sweep and the list of experiments.
    Bad("empty sweep", MODEL + "sweep: {}\n", ("sweep", "empty"), 2),
    Bad("blank sweep", MODEL + "sweep:\n", ("sweep", "must be a mapping"), 2),
    Bad("sweep as a list", MODEL + "sweep: [precision]\n", ("sweep", "mapping", "precision")),
    Bad("no values", MODEL + "sweep: {precision: []}\n", ("sweep.precision", "no values"), 2),
    Bad("no list", MODEL + "sweep: {precision: bf16}\n", ("sweep.precision", "[bf16]")),
    Bad(
        "mapping as value",
        MODEL + "sweep: {precision: [{a: 1}]}\n",
        ("sweep.precision[0]", "plain values", '{"a": 1}'),
    ),
    Bad(
        "mapping as list",
        MODEL + "sweep: {dataset: {n: 4}}\n",
        ("sweep.dataset", "list of mappings"),
    ),
    Bad(
        "every point wrong",
        MODEL + "sweep: {n: [0, -1]}\n",
        ("sweep.n[0]", "sweep.n[1]", "least 1"),
    ),
    Bad("mixed group", MODEL + "sweep: {g: [{n: 1}, 2]}\n", ("sweep.g[1]", "mapping", "2")),
    Bad("null group entry", MODEL + "sweep: {g: [{n: 1}, null]}\n", ("sweep.g[1]", "mapping")),
    Bad("empty group", MODEL + "sweep: {g: [{}, {}]}\n", ("sweep.g", "sets nothing")),
    Bad(
        "the original's later format",
        "serving_mode: offline\ntask: {model: gpt2}\n",
        ("LLenergyMeasure 0.6 or later", "`llem convert study.yaml > new.yaml`"),
    ),
    Bad("set twice", MODEL + "sweep: {n: [1], g: [{n: 2}]}\n", ("sweep.g", "which n sets too")),
    Bad("swept study key", MODEL + "sweep: {name: [a, b]}\n", ("sweep.name", "cannot be swept")),
    Bad(
        "swept folder",
        MODEL + "sweep: {output_dir: [a]}\n",
        ("sweep.output_dir", "cannot be swept"),
    ),
    Bad(
        "sweep over a backend not in the study",
        MODEL + "backend: pytorch\nsweep:\n  vllm.engine.max_num_seqs: [1, 2]\n",
        ("sweep.vllm.engine.max_num_seqs", "does not use", "add vllm to backend"),
        4,
    ),
    Bad("swept backend", MODEL + "sweep: {backend: [pytorch, vlm]}\n", ("backend[1]", "vllm")),
    Bad(
        "backend twice",
        MODEL + "backend: [vllm, pytorch]\nsweep: {backend: [vllm]}\n",
        ("backend", "keep one"),
    ),
    Bad(
        "path through a value",
        MODEL + "dataset: aienergyscore\nsweep: {dataset.input_len: [1]}\n",
        ("sweep.dataset.input_len", "write dataset as a mapping"),
    ),
    Bad(
        "range upside down",
        MODEL + "sweep: {n: {min: 9, max: 1, num: 3}}\n",
        ("sweep.n", "above max"),
    ),
    Bad("range without num", MODEL + "sweep: {n: {min: 1, max: 9}}\n", ("sweep.n", "num")),
    Bad(
        "range of none", MODEL + "sweep: {n: {min: 1, max: 9, num: 0}}\n", ("sweep.n", "at least 1")
    ),
    Bad(
        "log from 0",
        MODEL + "sweep: {n: {log: {min: 0, max: 9, num: 3}}}\n",
        ("sweep.n", "above 0"),
    ),
    Bad(
        "no power", MODEL + "sweep: {n: {pow2: {min: 5, max: 7}}}\n", ("sweep.n", "no power of two")
    ),
    Bad("range of text", MODEL + "sweep: {n: {min: a, max: b, num: 2}}\n", ("sweep.n", "number")),
    Bad(
        "too large a grid",
        MODEL
        + "sweep:\n  n: {min: 1, max: 1000, num: 1000}\n"
        + "  random_seed: {min: 1, max: 1000, num: 1000}\n",
        ("sweep", "1000000 points", "at most"),
        2,
    ),
    Bad(
        "too many runs",
        MODEL + "sweep: {n: {min: 1, max: 500, num: 500}}\nexecution: {n_cycles: 9999}\n",
        ("execution.n_cycles", "runs", "9999"),
    ),
    Bad("no experiments", MODEL + "experiments: []\n", ("experiments", "empty"), 2),
    Bad("blank experiments", MODEL + "experiments:\n", ("experiments", "list")),
    Bad("experiment as text", MODEL + "experiments: [a]\n", ("experiments[0]", "mapping", "a")),
    # Runners and names.
    Bad("runner of no backend", MODEL + "runners: {vlm: docker}\n", ("runners.vlm", "vllm")),
    Bad(
        "no runner", MODEL + "runners: {pytorch: podman}\n", ("runners.pytorch", "docker", "podman")
    ),
    Bad("no image", MODEL + "runners: {pytorch: 'docker:'}\n", ("runners.pytorch", "image")),
    Bad("image as option", MODEL + "runners: {pytorch: 'docker:--privileged'}\n", ("image",)),
    Bad("image with a shell", MODEL + "runners: {pytorch: 'docker:x; rm y'}\n", ("image",)),
    Bad("name upwards", MODEL + "name: ../x\n", ("name", "plain name", "../x"), 2),
    Bad("absolute name", MODEL + "name: /etc/x\n", ("name", "plain name", "/etc/x")),
    Bad("name with backslash", MODEL + "name: a\\b\n", ("name", "plain name")),
    Bad("empty name", MODEL + 'name: " "\n', ("name", "must not be empty")),
    Bad("dots as name", MODEL + "name: ..\n", ("name", "dot")),
    Bad("hidden name", MODEL + "name: .git\n", ("name", "dot", ".git")),
    Bad("long name", MODEL + f"name: {'x' * 500}\n", ("name", "no longer than", "xxx")),
    Bad("name with a line break", MODEL + 'name: "a\\nb"\n', ("name", "line breaks")),
    Bad("name of signs", MODEL + 'name: "???"\n', ("name", "letter or digit")),
    Bad("folder with NUL", MODEL + 'output_dir: "a\\0b"\n', ("output_dir", "path")),
    # The file itself.
    Bad("missing base", MODEL + "base: gone.yaml\n", ("base", "no such file", "gone.yaml"), 2),
    Bad("base of itself", MODEL + "base: study.yaml\n", ("base", "back to itself", "study.yaml")),
    Bad("base as list", MODEL + "base: [a.yaml]\n", ("base", "must be the path", "a.yaml")),
    Bad("base is a folder", MODEL + "base: .\n", ("base", "no such file")),
    Bad("empty file", "", ("empty",)),
    Bad("only a comment", "# nothing\n", ("empty",)),
    Bad("a list", "- model: x\n", ("must be a mapping",)),
    Bad("plain text", "hello\n", ("must be a mapping", "hello")),
    Bad("two documents", MODEL + "---\nn: 1\n", ("several documents",)),
    Bad("duplicate key", MODEL + "n: 1\nn: 2\n", ("n:", "twice", "line 2"), 3),
    Bad(
        "duplicate key inside",
        MODEL + "decoder: {top_k: 1, top_k: 2}\n",
        ("decoder.top_k", "twice"),
    ),
    Bad("number as key", MODEL + "1: 2\n", ("key must be text", "1"), 2),
    Bad("boolean as key", MODEL + "true: 2\n", ("key must be text", "quotes", "true"), 2),
    Bad("list as key", MODEL + "? [a]\n: 2\n", ("key must be text",)),
    Bad("tab", MODEL + "decoder:\n\ttop_k: 1\n", ("tab", "spaces"), 3),
    Bad("open bracket", MODEL + "sweep: {n: [1, 2\n", ("no valid YAML",)),
    Bad("unknown alias", MODEL + "n: *gone\n", ("no valid YAML", "gone"), 2),
    Bad("python tag", MODEL + "n: !!python/object/apply:os.system [ls]\n", ("n", "tag", "python")),
    Bad("own tag", MODEL + "n: !mine 3\n", ("n", "tag", "!mine"), 2),
    Bad("set", MODEL + "sweep: {n: !!set {1}}\n", ("sweep.n", "tag")),
    Bad("binary", MODEL + "name: !!binary aGk=\n", ("name", "tag")),
    Bad("not UTF-8", b"model: caf\xe9\n", ("UTF-8",), 1),
    Bad("UTF-16", "model: x\n".encode("utf-16"), ("UTF-8",)),
    Bad("NUL", b"model: a\0b\n", ("control character", "U+0000"), 1),
    Bad("escape sequence", b"model: x\nname: \x1b[31m\n", ("control character", "U+001B"), 2),
    Bad("deep", "model: " + "[" * 5000 + "]" * 5000 + "\n", ("nested deeper",), 1),
    Bad("list bomb", bomb(30, 9), ("expand",)),
    Bad("map bomb", map_bomb(30, 9), ("expand",)),
    Bad("merge bomb", merge_bomb(30, 9), ("expand",)),
    Bad("anchor of itself", "model: x\ndecoder: &a {top_k: *a}\n", ("refers to itself",)),
    Bad("merge of itself", "model: x\ndecoder: &a {<<: *a}\n", ("refers to itself",)),
    Bad("merge of itself in a list", "model: x\ndecoder: &a {<<: [*a]}\n", ("refers to itself",)),
    Bad("merge of text", MODEL + "decoder: {<<: text}\n", ("decoder", "merges mappings only")),
    Bad("too large", b"#" * (9 * 1024 * 1024), ("too large",)),
]
