# syntax=docker/dockerfile:1
# For CPUs:         docker build --tag forclip .
# For NVIDIA GPUs:  docker build --tag forclip:cuda --build-arg TORCH=cu130 .
# Then:             docker run --rm forclip doctor
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# cpu, or the CUDA version of PyTorch's wheels, which bring CUDA's libraries; the host needs the driver and its container
# toolkit.
ARG TORCH=cpu
COPY --from=wheel /wheels /wheels
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}" \
    && pip install --no-cache-dir /wheels/*.whl pillow-heif \
    && useradd --create-home --uid 1000 forclip \
    && mkdir --parents /data /models \
    && chown forclip:forclip /data /models
USER 1000
# Pretrained models are downloaded once, into the volume; search segments of stores in buckets are derived.
ENV HF_HOME=/models FORCLIP_CACHE=/data/cache PYTHONUNBUFFERED=1
VOLUME ["/data", "/models"]
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["forclip"]
CMD ["--help"]
