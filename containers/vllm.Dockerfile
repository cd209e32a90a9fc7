# The vllm backend for Docker: the worker's few needs, on vLLM's official image.
# Neither a model nor this project is inside: its source is bound when a run starts.
#   make images BACKEND=vllm RUNNER=docker
ARG BASE=docker.io/vllm/vllm-openai:v0.32.0
FROM ${BASE}
ARG BASE
ARG VERSION=unknown
COPY containers/worker.txt /opt/llem/requirements.txt
# A place for each thing that is bound: a run's root is read-only.
RUN mkdir -p /opt/llem/llenergymeasure /opt/llem/scripts && touch /opt/llem/hf_token
# The image is nobody's system: Debian's and Ubuntu's guard against pip has no point here.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    python3 -m pip install --quiet --requirement /opt/llem/requirements.txt
RUN python3 -c 'import numpy, pyarrow, pydantic, pynvml, yaml'
LABEL org.opencontainers.image.title="llenergymeasure-vllm" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE}" \
      llenergymeasure.engine="vLLM 0.32.0"
