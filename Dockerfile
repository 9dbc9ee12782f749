# pixelrl with a simulator and export. For CUDA: --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG BASE=ubuntu:24.04
FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive MUJOCO_GL=egl NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
RUN apt-get update && apt-get install -y --no-install-recommends \
      python3 python3-dev python3-venv g++ libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libglib2.0-0 libglvnd0 \
    && rm -rf /var/lib/apt/lists/*
# NVIDIA's driver is mounted in; EGL finds it by this file.
RUN mkdir -p /usr/share/glvnd/egl_vendor.d && \
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}' \
      > /usr/share/glvnd/egl_vendor.d/10_nvidia.json
RUN python3 -m venv /opt/pixelrl && /opt/pixelrl/bin/pip install --no-cache-dir uv
ENV PATH=/opt/pixelrl/bin:$PATH VIRTUAL_ENV=/opt/pixelrl
# An image without CUDA takes the small torch, where its own registry is within reach; NVIDIA's images set CUDA_VERSION.
RUN [ -n "${CUDA_VERSION:-}" ] || uv pip install --no-cache --torch-backend cpu torch torchvision || \
    echo "torch's own registry is not within reach: the ordinary one serves (3 GB more)"
COPY . /src
RUN uv pip install --no-cache --override /src/.ci/overrides.txt '/src[all]'
WORKDIR /data
ENTRYPOINT ["pixelrl"]
CMD ["--help"]
