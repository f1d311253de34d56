"""Packs ``configs/`` and ``requirements/`` into the package, where `paddle_resnet.project_files` finds them."""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = ("configs", "requirements")


def required(*names: str) -> list[str]:
    """Read requirements files."""
    lines = [line.partition("#")[0].strip() for name in names for line in Path(name).read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


setup(
    packages=find_packages(include=["paddle_resnet*"]) + [f"paddle_resnet.{folder}" for folder in FOLDERS],
    package_dir={f"paddle_resnet.{folder}": folder for folder in FOLDERS},
    package_data={
        "": ["text.yaml"],
        "paddle_resnet.lessons": ["catalogue.yaml", "labels.yaml", "transfer/five_classes.json"],
        "paddle_resnet": ["py.typed"],
        "paddle_resnet.zoo": ["cifar10/*.json", "cifar10/*.safetensors"],
        "paddle_resnet.exporting": ["web/*"],
        "paddle_resnet.service": ["pages/*"],
        "paddle_resnet.configs": ["*.yaml"],
        "paddle_resnet.requirements": ["[!l]*.txt"],
    },
    # Paddle is an extra, as its CPU and its GPU build write to the same folder.
    install_requires=required("requirements/common.txt", "requirements/serve.txt"),
    extras_require={
        "cpu": required("requirements.txt"),
        "gpu": required("requirements/gpu.txt", "requirements/paddle2.txt"),
        "notebook": required("requirements/notebook.txt"),
        "onnx": required("requirements/onnx.txt"),
        "ray": required("requirements/ray.txt"),
        "tensorboard": required("requirements/tensorboard.txt"),
    },
)
