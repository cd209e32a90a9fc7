"""Studies that cannot be used, and what the message about each must hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bad:
    """A study, and what its message must hold beside the file's name."""

    name: str
    text: str | bytes
    said: tuple[str, ...]
    line: int | None = None


def whole(name: str, text: str | bytes, *said: str, line: int | None = None) -> Bad:
    """One of the given text."""
    return Bad(name, text, said, line)


def bad(name: str, text: str, *said: str, line: int | None = None) -> Bad:
    """One that has a model, and then the given text."""
    return Bad(name, MODEL + text, said, line)


def bomb(first: str, entry: str, line: str) -> str:
    """Thirty lines, each of nine entries that refer to the line before."""
    lines = [f"a0: &a0 {first}"]
    for n in range(1, 30):
        inner = ", ".join(entry.format(at=at, before=n - 1) for at in range(9))
        lines.append(f"a{n}: &a{n} {line.format(inner)}")
    return "\n".join(lines)


MODEL = "model: tiny-llama\n"

CASES = [
    # Unknown keys, at each level.
    bad("top-level key", "precison: bf16\n", "precison", "did you mean precision?", line=2),
    whole("former name", "model_name: gpt2\n", "model_name", "did you mean model?", "gpt2", line=1),
    bad("study key", "runner: {pytorch: local}\n", "runner", "runners", line=2),
    bad("key of another place", "batch_size: 8\n", "batch_size", "pytorch.batch_size", line=2),
    bad(
        "key in a section",
        "decoder:\n  temprature: 1\n",
        "decoder.temprature",
        "decoder.temperature",
        line=3,
    ),
    bad(
        "key in a nested section",
        "backend: vllm\nvllm:\n  engine:\n    enforce_eagre: true\n",
        "vllm.engine.enforce_eagre",
        "vllm.engine.enforce_eager",
        line=5,
    ),
    bad(
        "key three deep",
        "backend: vllm\nvllm: {engine: {attention: {backnd: X}}}\n",
        "vllm.engine.attention.backnd",
        "vllm.engine.attention.backend",
    ),
    bad("key in the data set", "dataset: {n: 4, length: 3}\n", "dataset.length", "known"),
    bad("key in execution", "execution:\n  cycles: 3\n", "execution.cycles", "n_cycles", line=3),
    bad(
        "key in an experiment",
        "experiments:\n  - precision: fp16\n  - precisio: fp16\n",
        "experiments[1].precisio",
        "precision",
        line=4,
    ),
    bad("key in the sweep", "sweep: {precsion: [fp16]}\n", "sweep.precsion", "precision"),
    bad(
        "dotted key in the sweep",
        "sweep: {pytorch.batchsize: [1]}\n",
        "sweep.pytorch.batchsize",
        "pytorch.batch_size",
    ),
    bad(
        "key in a group",
        "sweep: {size: [{pytorch.batch_sise: 1}]}\n",
        "sweep.size[0].pytorch.batch_sise",
        "pytorch.batch_size",
    ),
    bad(
        "key in a swept section",
        "sweep: {decoder: [{top_pp: 1}]}\n",
        "sweep.decoder[0].top_pp",
        "decoder.top_p",
    ),
    bad("a group that is a misspelling", "sweep: {datset: [{n: 1}]}\n", "datset", "dataset"),
    bad("dotted key outside the sweep", "decoder.top_k: 3\n", "decoder.top_k", "nested"),
    bad(
        "no blank after a colon", "execution: {n_cycles:5}\n", "execution.n_cycles", "blank", line=2
    ),
    bad("a runner without a blank", "runners: {pytorch:docker}\n", "runners.pytorch", "blank"),
    bad(
        "no blank in a free mapping", "chat: {arguments: {a:false}}\n", "chat.arguments.a", "blank"
    ),
    bad("null by a wrong name", "execution: {n_cycls: null}\n", "execution.n_cycls", "n_cycles"),
    bad(
        "shortened key", "serving: {rate: 2}\n", "serving.rate", "did you mean serving.rate_per_s?"
    ),
    bad("shortened elsewhere", "power_limit: 200\n", "power_limit", "gpu.power_limit_w?", line=2),
    bad("cycles at the top", "n_cycles: 5\n", "n_cycles", "did you mean execution.n_cycles?"),
    bad("an engine's tokens", "max_tokens: 5\n", "max_tokens", "did you mean max_output_tokens?"),
    bad("another name of an engine", "backend: transformers\n", "backend", "mean pytorch?"),
    bad("a server as backend", "backend: ollama\n", "backend", "openai is any other server"),
    bad("another tool's base", "extends: a.yaml\n", "extends", "did you mean base?"),
    bad("path of a data set", "dataset: {path: a.csv}\n", "dataset.path", "dataset: prompts.csv"),
    # Types.
    bad("several of one", "precision: [fp16, bf16]\n", "precision", "sweep: {precision: […]}"),
    bad("several inside", "serving: {rate_per_s: [1, 2]}\n", "sweep: {serving.rate_per_s: […]}"),
    bad("number with a unit", "gpu: {power_limit_w: 300W}\n", "must be a number, without a unit"),
    bad("quantised", "precision: int8\n", "precision", "pytorch.load_in_8bit"),
    bad("a command line", 'openai: {command: "a --b"}\nbackend: openai\n', 'such as ["a", "--b"]'),
    bad("devices as text", 'gpu: {devices: "0,1"}\n', "such as [0, 1]"),
    bad("tasks as text", 'quality: {tasks: "a, b"}\n', 'such as ["a", "b"]'),
    bad("words in quotes", "notify: {command: \"mail -s 'a b'\"}\n", '["mail", "-s", "a b"]'),
    bad("an open quote", 'notify: {command: "mail \'a"}\n', '["mail", "\'a"]'),
    bad("cycle", "cycle: 3\n", "did you mean execution.n_cycles?"),
    bad("cycle in its section", "execution: {cycle: 3}\n", "did you mean execution.n_cycles?"),
    bad("hf", "backend: hf\n", "did you mean pytorch?"),
    bad("trt", "backend: trt\n", "did you mean tensorrt?"),
    bad("trtllm", "backend: trtllm\n", "did you mean tensorrt?"),
    bad("one device", "gpu: {devices: 0}\n", "gpu.devices", "must be a list, such as [0]"),
    bad("text as section", "lora: ./a\n", "lora", "mapping of adapter_id, adapter_path"),
    bad("number as text", 'n: "16"\n', "n:", "whole number, without quotes", '"16"', line=2),
    whole("date for a number", "model: a\nn: 2024-01-01\n", 'whole number (found "2024-01-01")'),
    bad("section of a data set", "dataset: {shared_prefix_len: 1000}\n", "dataset: shared_prefix"),
    bad("number in a data set", "dataset: {n: 0.5}\n", "dataset.n: must be a whole number"),
    bad("an axis of nothing", "sweep:\n  n:\n", "sweep.n", "such as [1, 2, 4] (found null)"),
    bad("a key near to none", "decoder: {a: 1}\n", "decoder.a", "known here: preset"),
    bad("word for a number", "n: many\n", "n: must be a whole number (found", line=2),
    bad("boolean as number", "n: true\n", "n:", "whole number", "true"),
    bad("fraction as whole number", "n: 1.5\n", "n:", "whole number", "1.5"),
    bad("text as boolean", "decoder: {do_sample: maybe}\n", "do_sample", "true or false"),
    bad("number as boolean", "decoder: {do_sample: 1}\n", "do_sample", "true or false"),
    whole("list as model", "model: [a, b]\n", "model", "must be text", '["a", "b"]', line=1),
    bad("boolean as text", "name: false\n", "name", "needs quotes", "false", line=2),
    whole("number as model", "model: 7\n", "model", "in quotes", "7"),
    bad("section as number", "decoder: 5\n", "decoder", "must be a mapping", "5", line=2),
    bad("section as list", "warmup: [1]\n", "warmup", "must be a mapping", "[1]"),
    bad("data set as number", "dataset: 5\n", "dataset", "must be text", "mapping", "5"),
    bad("boolean as precision", "precision: off\n", "precision", "fp32", "off"),
    bad("zero-led number", "n: 010\n", "n:", "whole number", '"010"'),
    bad("time as number", "n: 1:30\n", "n:", "whole number", "1:30"),
    # Bounds.
    bad("n of 0", "n: 0\n", "n:", "at least 1", "0", line=2),
    bad("huge n", f"n: {10**30}\n", "n:", "at most", "1000000"),
    bad("number too long to read", f"n: {'9' * 5000}\n", "n:", "no number", "9999"),
    bad("hot", "decoder: {temperature: 3}\n", "decoder.temperature", "at most 2", "3"),
    bad("top_p", "decoder: {top_p: 1.5}\n", "decoder.top_p", "at least 0", "at most 1"),
    bad("window", "window: {min_seconds: 0}\n", "window.min_seconds", "more than 0"),
    bad(
        "memory share",
        "backend: vllm\nvllm: {engine: {gpu_memory_utilization: 1.5}}\n",
        "vllm.engine.gpu_memory_utilization",
        "at most 1",
        "1.5",
    ),
    bad("not a number", "decoder: {temperature: .nan}\n", "temperature", "finite", ".nan"),
    bad("infinite", "decoder: {temperature: -.inf}\n", "temperature", "finite", "-.inf"),
    bad("overflow", "decoder: {temperature: 1.0e999}\n", "temperature", "finite", "1.0e999"),
    # Choices.
    bad("precision", "precision: bf61\n", "precision", "bf16", "bf61", "did you mean"),
    bad("backend", "backend: vlm\n", "backend", "did you mean vllm?", "vlm", line=2),
    bad("backend in a list", "backend: [pytorch, vlm]\n", "backend[1]", "vllm", "vlm"),
    bad("no backend", "backend: []\n", "backend", "at least one", "[]"),
    # What does not fit together.
    whole("no model", "n: 4\n", "model", "missing"),
    whole("null model", "model:\n", "model", "missing"),
    whole("empty model", 'model: ""\n', "model", "must not be empty", '""'),
    whole(
        "missing model folder", "model: ./no/such/model\n", "model", "no such", "./no/such/model"
    ),
    bad("missing data file", "dataset: gone.jsonl\n", "dataset", "no such", "gone.jsonl"),
    bad(
        "4 and 8 bits",
        "pytorch: {load_in_4bit: true, load_in_8bit: true}\n",
        "pytorch",
        "exclude each other",
    ),
    bad(
        "compile mode alone",
        "pytorch: {torch_compile_mode: default}\n",
        "pytorch",
        "needs torch_compile: true",
    ),
    bad("two adapters", "lora: {adapter_id: a, adapter_path: b}\n", "lora", "only one"),
    bad("no adapter", "lora: {merge_weights: true}\n", "lora", "adapter_id"),
    bad(
        "hidden setting",
        "passthrough_kwargs: {precision: fp16}\n",
        "passthrough_kwargs",
        "precision",
        "top level",
    ),
    bad(
        "section of an unused backend",
        "vllm: {engine: {max_num_seqs: 4}}\n",
        "vllm",
        "set backend: vllm",
        line=2,
    ),
    bad("server unnamed", "backend: openai\n", "openai.base_url"),
    bad(
        "server elsewhere",
        "backend: openai\nopenai: {base_url: http://example.com/v1}\n",
        "openai.base_url",
        "on this machine",
        "example.com",
    ),
    bad(
        "server with a secret",
        "backend: openai\nopenai: {base_url: 'http://u:p@localhost/v1'}\n",
        "openai.base_url",
        "api_key_env",
    ),
    # The sweep and the list of experiments.
    bad("empty sweep", "sweep: {}\n", "sweep", "empty", line=2),
    bad("blank sweep", "sweep:\n", "sweep", "must be a mapping", line=2),
    bad("sweep as a list", "sweep: [precision]\n", "sweep", "mapping", "precision"),
    bad("no values", "sweep: {precision: []}\n", "sweep.precision", "no values", line=2),
    bad("no list", "sweep: {precision: bf16}\n", "sweep.precision", "[bf16]"),
    bad(
        "mapping as value",
        "sweep: {precision: [{a: 1}]}\n",
        "sweep.precision[0]",
        "plain values",
        '{"a": 1}',
    ),
    bad("mapping as list", "sweep: {dataset: {n: 4}}\n", "sweep.dataset", "list of mappings"),
    bad(
        "section in the sweep",
        "sweep: {vllm: {engine: {seed: [1]}}}\n",
        "write vllm.engine.seed: […]",
    ),
    bad("call as values", "sweep: {n: 'range(4)'}\n", "sweep.n", "such as [1, 2, 4]"),
    bad("every point wrong", "sweep: {n: [0, -1]}\n", "sweep.n[0]", "sweep.n[1]", "least 1"),
    bad("mixed group", "sweep: {g: [{n: 1}, 2]}\n", "sweep.g[1]", "mapping", "2"),
    bad("null group entry", "sweep: {g: [{n: 1}, null]}\n", "sweep.g[1]", "mapping"),
    bad("empty group", "sweep: {g: [{}, {}]}\n", "sweep.g", "sets nothing"),
    whole(
        "the original's later format",
        "serving_mode: offline\ntask: {model: gpt2}\n",
        "LLenergyMeasure 0.6 or 0.7",
        "`llem convert study.yaml > new.yaml`",
    ),
    bad("set twice", "sweep: {n: [1], g: [{n: 2}]}\n", "sweep.g", "which n sets too"),
    bad("swept study key", "sweep: {name: [a, b]}\n", "sweep.name", "cannot be swept"),
    bad("swept folder", "sweep: {output_dir: [a]}\n", "sweep.output_dir", "cannot be swept"),
    bad(
        "sweep over a backend not in the study",
        "backend: pytorch\nsweep:\n  vllm.engine.max_num_seqs: [1, 2]\n",
        "sweep.vllm.engine.max_num_seqs",
        "does not use",
        "add vllm to backend",
        line=4,
    ),
    bad("swept backend", "sweep: {backend: [pytorch, vlm]}\n", "backend[1]", "vllm"),
    bad(
        "backend twice",
        "backend: [vllm, pytorch]\nsweep: {backend: [vllm]}\n",
        "backend",
        "keep one",
    ),
    bad(
        "path through a value",
        "dataset: aienergyscore\nsweep: {dataset.input_len: [1]}\n",
        "sweep.dataset.input_len",
        "write dataset as a mapping",
    ),
    bad("range upside down", "sweep: {n: {min: 9, max: 1, num: 3}}\n", "sweep.n", "above max"),
    bad("range without num", "sweep: {n: {min: 1, max: 9}}\n", "sweep.n", "num"),
    bad("range of none", "sweep: {n: {min: 1, max: 9, num: 0}}\n", "sweep.n", "at least 1"),
    bad("log from 0", "sweep: {n: {log: {min: 0, max: 9, num: 3}}}\n", "sweep.n", "above 0"),
    bad("no power", "sweep: {n: {pow2: {min: 5, max: 7}}}\n", "sweep.n", "no power of two"),
    bad("range of text", "sweep: {n: {min: a, max: b, num: 2}}\n", "sweep.n", "number"),
    bad(
        "too large a grid",
        "sweep:\n  n: {min: 1, max: 1000, num: 1000}\n"
        + "  random_seed: {min: 1, max: 1000, num: 1000}\n",
        "sweep",
        "1000000 points",
        "at most",
        line=2,
    ),
    bad(
        "too many runs",
        "sweep: {n: {min: 1, max: 500, num: 500}}\nexecution: {n_cycles: 9999}\n",
        "execution.n_cycles",
        "runs",
        "9999",
    ),
    bad("no experiments", "experiments: []\n", "experiments", "empty", line=2),
    bad("blank experiments", "experiments:\n", "experiments", "list"),
    bad("experiment as text", "experiments: [a]\n", "experiments[0]", "mapping", "a"),
    # Runners and names.
    bad("runner of no backend", "runners: {vlm: docker}\n", "runners.vlm", "vllm"),
    bad("no runner", "runners: {pytorch: podman}\n", "runners.pytorch", "docker", "podman"),
    bad("no image", "runners: {pytorch: 'docker:'}\n", "runners.pytorch", "image"),
    bad("image as option", "runners: {pytorch: 'docker:--privileged'}\n", "image"),
    bad("image with a shell", "runners: {pytorch: 'docker:x; rm y'}\n", "image"),
    bad("name upwards", "name: ../x\n", "name", "plain name", "../x", line=2),
    bad("absolute name", "name: /etc/x\n", "name", "plain name", "/etc/x"),
    bad("name with backslash", "name: a\\b\n", "name", "plain name"),
    bad("empty name", 'name: " "\n', "name", "must not be empty"),
    bad("dots as name", "name: ..\n", "name", "dot"),
    bad("hidden name", "name: .git\n", "name", "dot", ".git"),
    bad("long name", f"name: {'x' * 500}\n", "name", "no longer than", "xxx"),
    bad("name with a line break", 'name: "a\\nb"\n', "name", "line breaks"),
    bad("name of signs", 'name: "???"\n', "name", "letter or digit"),
    bad("folder with NUL", 'output_dir: "a\\0b"\n', "output_dir", "path"),
    # The file itself.
    bad("missing base", "base: gone.yaml\n", "base", "no such file", "gone.yaml", line=2),
    bad("base of itself", "base: study.yaml\n", "base", "back to itself", "study.yaml"),
    bad("base as list", "base: [a.yaml]\n", "base", "must be the path", "a.yaml"),
    bad("base is a folder", "base: .\n", "base", "no such file"),
    whole("empty file", "", "empty"),
    whole("only a comment", "# nothing\n", "empty"),
    whole("a list", "- model: x\n", "must be a mapping"),
    whole("plain text", "hello\n", "must be a mapping", "hello"),
    bad("two documents", "---\nn: 1\n", "several documents"),
    bad("duplicate key", "n: 1\nn: 2\n", "n:", "twice", "line 2", line=3),
    bad("duplicate key inside", "decoder: {top_k: 1, top_k: 2}\n", "decoder.top_k", "twice"),
    bad("number as key", "1: 2\n", "key must be text", "1", line=2),
    bad("boolean as key", "true: 2\n", "key must be text", "quotes", "true", line=2),
    bad("list as key", "? [a]\n: 2\n", "key must be text"),
    bad("tab", "decoder:\n\ttop_k: 1\n", "tab", "spaces", line=3),
    bad("open bracket", "sweep: {n: [1, 2\n", "no valid YAML"),
    bad("no colon", "sweep\n  n: [1]\nn: 2\n", "without a colon", "'sweep'", line=2),
    bad("no colon, a value", "n 4\nprotocol: quick\n", "without a colon", "'n 4'", line=2),
    bad("no blank", "n:4\nprotocol: quick\n", "a colon and a blank", "'n:4'", line=2),
    bad("indented too little", "sweep:\n  n: [1]\n n: 3\n", "same column", "'n: 3'", line=4),
    bad("indented too much", "  n: 3\n", "indentation", "'n: 3'", line=2),
    bad("unknown alias", "n: *gone\n", "no valid YAML", "gone", line=2),
    bad("python tag", "n: !!python/object/apply:os.system [ls]\n", "n", "tag", "python"),
    bad("own tag", "n: !mine 3\n", "n", "tag", "!mine", line=2),
    bad("bare tag of a key", "!<str> precision: bf16\n", "a key must be text", line=2),
    bad("set", "sweep: {n: !!set {1}}\n", "sweep.n", "tag"),
    bad("binary", "name: !!binary aGk=\n", "name", "tag"),
    whole("not UTF-8", b"model: caf\xe9\n", "UTF-8", line=1),
    whole("UTF-16", "model: x\n".encode("utf-16"), "UTF-8"),
    whole("NUL", b"model: a\0b\n", "control character", "U+0000", line=1),
    whole("escape sequence", b"model: x\nname: \x1b[31m\n", "control character", "U+001B", line=2),
    whole("deep", "model: " + "[" * 5000 + "]" * 5000 + "\n", "nested deeper", line=1),
    whole("list bomb", bomb("[1, 2, 3, 4]", "*a{before}", "[{}]"), "expand"),
    whole("map bomb", bomb("{x: 1, y: 2}", "k{at}: *a{before}", "{{{}}}"), "expand"),
    whole("merge bomb", bomb("{x: 1, y: 2}", "*a{before}", "{{<<: [{}]}}"), "expand"),
    whole("anchor of itself", "model: x\ndecoder: &a {top_k: *a}\n", "refers to itself"),
    whole("merge of itself", "model: x\ndecoder: &a {<<: *a}\n", "refers to itself"),
    whole("merge of itself in a list", "model: x\ndecoder: &a {<<: [*a]}\n", "refers to itself"),
    bad("merge of text", "decoder: {<<: text}\n", "decoder", "merges mappings only"),
    whole("too large", b"#" * (9 * 1024 * 1024), "too large"),
]
