# The server on a CPU: not root, a read-only root file system, the built-in model inside.
#   docker build -t gpt2wgpu .
#   docker run --rm -p 8080:8080 --read-only --cap-drop ALL --security-opt no-new-privileges gpt2wgpu
# Another model: mount its folder and add `--model /models/NAME`. GPUs: docs/containers.md.
FROM debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man

FROM base AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv
COPY . /source
RUN python3 -m venv --without-pip /opt/gpt2wgpu \
 && python3 -m venv /opt/pip \
 && /opt/pip/bin/pip --python /opt/gpt2wgpu/bin/python3 install --quiet --no-cache-dir --no-compile "/source[serve]" \
 && find /opt/gpt2wgpu -name tests -type d -prune -exec rm -rf {} +

FROM base
COPY --from=build /opt/gpt2wgpu /opt/gpt2wgpu
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gpt2wgpu
USER 10001
ENV PATH=/opt/gpt2wgpu/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HF_HUB_OFFLINE=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["gpt2wgpu", "serve", "--check", "http://127.0.0.1:8080"]
ENTRYPOINT ["gpt2wgpu", "serve", "--host", "0.0.0.0", "--device", "numpy"]
