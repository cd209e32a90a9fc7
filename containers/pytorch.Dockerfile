# The pytorch backend for Docker: transformers and what it needs, on torch's official image.
# Neither a model nor this project is inside: its source is bound when a run starts.
#   make images BACKEND=pytorch RUNNER=docker
ARG BASE=docker.io/pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime@sha256:db80a41f8428644cebcb3d75b0b62df334ab6c0e75785951eb25f48bfbd42407
FROM ${BASE}
ARG BASE
ARG VERSION=unknown
COPY envs/pytorch.txt /opt/llem/requirements.txt
# A place for each thing that is bound: a run's root is read-only.
RUN mkdir -p /opt/llem/llenergymeasure /opt/llem/scripts && touch /opt/llem/hf_token
# The image is nobody's system: Debian's and Ubuntu's guard against pip has no point here.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    python3 -m pip install --quiet --requirement /opt/llem/requirements.txt
RUN python3 -c 'import numpy, pyarrow, pydantic, pynvml, yaml'
LABEL org.opencontainers.image.title="llenergymeasure-pytorch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${BASE}" \
      llenergymeasure.engine="torch 2.13.0, CUDA 13.0"
