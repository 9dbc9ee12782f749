"""Install pixelrl. The links `encoders`, `datasets` and `launch` beside this file lead into the one package."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pixelrl/version.py").read_text()).group(1)
RAY = ["ray>=2.49,<2.61"]
# pyarrow 26 wants numpy 2, which only Python 3.13 has here (see below).
LEROBOT = ["pyarrow>=18,<26; python_version < '3.13'", "pyarrow>=18; python_version >= '3.13'"]
SERVE = ["mcap>=1.1", "msgpack>=1.0.5", "prometheus-client>=0.20", "websockets>=14"]

setup(
    name="pixelrl",
    version=VERSION,
    description="Offline reinforcement learning from pixels for robotic manipulation",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["pixelrl*"]),
    package_data={"pixelrl": ["py.typed"], "pixelrl.launch": ["scripts/*", "reports/templates/*"]},
    entry_points={"console_scripts": ["pixelrl=pixelrl.launch.cli:main"]},
    install_requires=[
        "av>=14",
        "einops>=0.8",
        "gymnasium>=1.1",
        "h5py>=3.10",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "mujoco>=3.3,<3.10",
        # robosuite's mink wants numpy below 2 and, from Python 3.13 on, onnx's ml_dtypes 2.1: .ci/setup overrules mink.
        # Naming mink there makes pip say so at once instead of trying other versions for many minutes.
        "mink==0.0.5; python_version >= '3.13'",
        "numpy>=1.26,<2; python_version < '3.13'",
        "numpy>=2.1; python_version >= '3.13'",
        "onnx>=1.18",
        "onnxruntime>=1.20",
        "onnxscript>=0.3",
        "pillow>=10",
        "psutil>=5.9",
        "rich>=13",
        "robosuite>=1.5.2,<1.6",
        "safetensors>=0.5",
        "scipy>=1.11",
        "tensorboard>=2.16",
        "torch>=2.11",
        "torchvision>=0.26",
        "tyro>=0.9.20",
    ],
    extras_require={
        "lerobot": LEROBOT,
        "ray": RAY,
        "slurm": ["submitit>=1.5,<2"],
        "zarr": ["imagecodecs>=2023.1", "numcodecs>=0.12"],
        "serve": SERVE,
        "robomimic": ["robomimic==0.3.0", "six>=1.16"],
        "test": [
            *LEROBOT,
            "hypothesis>=6.100",
            "minari[hdf5]>=0.5.3,<0.6",
            "mypy>=1.15",
            "pytest>=8",
            "pytest-xdist>=3.6",
            *RAY,
            "ruff>=0.12",
            *SERVE,
            "setuptools>=70",
        ],
    },
)
