"""Engine parameters that a study may not set: what sets them, or why nothing does."""

from collections.abc import Mapping

_CREDENTIAL = "would be written into the results; give it by the environment: {}"
_CHANGES_COUNT = "would change what is counted as output, so it may not be set"
_ADDRESS = "is not for a study: the server listens on this machine alone, at a free port"
_GPUS = "may not be set: a run's energy is that of the GPUs it is given; see CUDA_VISIBLE_DEVICES"
_MACHINES = "may not be set: what other machines draw would be missing from the energy"

NAMED_IN_STUDY = {
    "max_new_tokens": "max_output_tokens",
    "max_length": "max_output_tokens",
    "min_new_tokens": "decoder.min_new_tokens",
    "min_length": "decoder.min_new_tokens",
    "temperature": "decoder.temperature",
    "do_sample": "decoder.do_sample",
    "top_k": "decoder.top_k",
    "top_p": "decoder.top_p",
    "min_p": "decoder.min_p",
    "repetition_penalty": "decoder.repetition_penalty",
    "dtype": "precision",
    "torch_dtype": "precision",
    "quantization_config": "pytorch.load_in_4bit or pytorch.load_in_8bit",
}
"""Arguments of transformers that have a name of their own in a study, and no field of their own."""

COUNT_CHANGING = (
    "eos_token_id",
    "num_return_sequences",
    "output_loading_info",
    "return_dict_in_generate",
    "stop_strings",
    "max_time",
)
"""Arguments of transformers that would change what is counted as output."""

_PYTORCH = {
    **NAMED_IN_STUDY,
    "tp_plan": "pytorch.tensor_parallel_size",
    "tp_size": "pytorch.tensor_parallel_size",
    "distributed_config": "pytorch.tensor_parallel_size",
    "compile_config": "pytorch.torch_compile",
}

RESERVED: Mapping[str, Mapping[str, str]] = {
    "pytorch": {
        **{name: f"has a name of its own in a study; set {key}" for name, key in _PYTORCH.items()},
        **dict.fromkeys(COUNT_CHANGING, _CHANGES_COUNT),
        "token": _CREDENTIAL.format("HF_TOKEN"),
        "proxies": _CREDENTIAL.format("HTTPS_PROXY"),
    },
    "vllm.engine": {
        "model": "is the study's own model; set model",
        "hf_token": _CREDENTIAL.format("HF_TOKEN"),
        "device_ids": _GPUS,
        **dict.fromkeys(
            (
                "nnodes",
                "node_rank",
                "master_addr",
                "data_parallel_rank",
                "data_parallel_start_rank",
                "data_parallel_size_local",
                "data_parallel_address",
                "data_parallel_hybrid_lb",
                "data_parallel_external_lb",
            ),
            _MACHINES,
        ),
        "kv_events_config": _ADDRESS,
        "worker_extension_cls": "is taken: by it each worker is asked for its device and memory",
    },
    "sglang.engine": {
        "model_path": "is the study's own model; set model",
        "served_model_name": "is not for a study: the server has one model, and one to ask it",
        "skip_tokenizer_init": "is settled: batches are token ids, servers have a tokenizer",
        **dict.fromkeys(("base_gpu_id", "gpu_id_step"), _GPUS),
        **dict.fromkeys(("nnodes", "node_rank", "dist_init_addr"), _MACHINES),
        **dict.fromkeys(
            (
                *("host", "port", "api_key", "admin_api_key", "ssl_keyfile_password"),
                *("grpc_port", "smg_http_sidecar_port", "gated_launch_port"),
                *("kv_events_config", "load_publish_endpoint"),
            ),
            _ADDRESS,
        ),
        "watermark_key": _CREDENTIAL.format("the server's own configuration"),
        "watermark_key_b": _CREDENTIAL.format("the server's own configuration"),
    },
    "tensorrt.engine": {
        "model": "is the study's own model; set model",
        "enable_build_cache": "has no use here: built engines are kept, see `llem clean --engines`",
    },
}
"""By section of the study file and parameter, what to say."""


def why_reserved(section: str, name: str) -> str | None:
    """Return why a study may not set the parameter ``name`` of ``section``; None if it may."""
    return RESERVED.get(section, {}).get(name)


CREDENTIALS = frozenset({"webhook", "api_key", "admin_api_key", "ssl_keyfile_password"}) | {
    name
    for reasons in RESERVED.values()
    for name, reason in reasons.items()
    if reason.startswith(_CREDENTIAL.partition("{")[0])
}
"""Parameters whose value is a secret, and is shown in no message."""
