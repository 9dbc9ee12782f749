"""Install pixelrl. The links `encoders`, `datasets` and `launch` beside this file lead into the one package."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "pixelrl/version.py").read_text()).group(1)

# What each serves stands in docs/install.md; `pixelrl.runtime.extras` names the one that a missing module is of.
EXTRAS = {
    "sim": ["av>=14", "gymnasium>=1.1", "matplotlib>=3.8", "mujoco>=3.3,<3.10", "robosuite>=1.5.2,<1.6"],
    "export": ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.3"],
    "resnet": ["torchvision>=0.26"],
    "lerobot": ["av>=14", "pyarrow>=18"],
    "zarr": ["imagecodecs>=2023.1", "numcodecs>=0.12"],
    "ray": ["ray>=2.49,<2.61"],
    "slurm": ["submitit>=1.5,<2"],
    "minari": [],  # its HDF5 is read and written by the base; the name is there for those who look for it
    "mcap": ["mcap>=1.5,<2"],
    "serve": ["mcap>=1.5,<2", "msgpack>=1.0.5", "onnxruntime>=1.20", "prometheus-client>=0.20", "websockets>=14"],
}
# The tests skip the first where it is not installed, and have stand-ins for the others.
WATCHING = {
    "rerun": ["rerun-sdk>=0.26"],
    "wandb": ["wandb>=0.18"],
    "mlflow": ["mlflow>=2.16"],
    "trackio": ["trackio>=0.27"],
}
# What the tests and benchmarks compare with; with pip it compiles a package in C++.
ROBOMIMIC = ["robomimic==0.3.0", "six>=1.16"]
TEST = [
    *ROBOMIMIC,
    "hypothesis>=6.100",
    "minari[hdf5]>=0.5.3,<0.6",
    "mypy>=1.15",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    "setuptools>=70",
]
DOCS = ["furo>=2025.7", "ipykernel>=6.29", "myst-nb>=1.3,<2", "sphinx>=8.1", "sphinx-copybutton>=0.5.2"]
ALL = sorted({package for packages in EXTRAS.values() for package in packages})

setup(
    name="pixelrl",
    version=VERSION,
    description="Offline reinforcement learning from pixels for robotic manipulation",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    classifiers=[  # 3.11: the suite; 3.12 and 3.13: parts of it; 3.14 is only resolved
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    packages=find_namespace_packages(include=["pixelrl*"]),
    package_data={
        "pixelrl": ["py.typed"],
        "pixelrl.export": ["*.j2"],
        "pixelrl.launch": ["scripts/*", "reports/templates/*"],
    },
    entry_points={"console_scripts": ["pixelrl=pixelrl.launch.cli:main"]},
    install_requires=[
        "einops>=0.8",
        "h5py>=3.10",
        "jinja2>=3.1",
        "numpy>=1.26",
        "numpy>=2.1; python_version >= '3.13'",  # 1.26 knows no later Python than 3.12, and pip would try to compile it
        "pillow>=10",
        "psutil>=5.9",
        "rich>=13",
        "safetensors>=0.5",
        "scipy>=1.11",
        "tensorboard>=2.16",
        "torch>=2.11",
        "tyro>=0.9.20",
    ],
    extras_require=EXTRAS | WATCHING | {"robomimic": ROBOMIMIC, "all": ALL, "docs": DOCS, "test": [*ALL, *DOCS, *TEST]},
)
