"""Official ImageNet weights by name: addresses, checksums and preprocessing; downloaded once, checked at each use.

All were trained on RGB pixels normalised by ImageNet's mean and deviation, and measured on the central 224 x 224 pixels
of images that were resized bilinearly; what differs is the shorter side before the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle_resnet import download
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.files import sha256_of
from paddle_resnet.paths import home_folder, paddle_cache
from paddle_resnet.text_files import write_text
from paddle_resnet.zoo.registry import ALIASES

SHORTER_SIDE = 256  # pixels, at a crop of 224


@dataclass(frozen=True)
class OfficialWeights(download.OfficialFile):
    """One file of weights. Without a checksum, that of the first download counts."""

    shorter_side: int = SHORTER_SIDE


def _paddleclas(name: str) -> OfficialWeights:
    """Return a file of PaddleClas, ``docs/en/models/ImageNet_models_en.md``: it publishes no checksum."""
    folder = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models"
    return OfficialWeights(f"{folder}/{name}_pretrained.pdparams")


def _torchvision(name: str, shorter_side: int = SHORTER_SIDE) -> OfficialWeights:
    """Return a file of torchvision's ``models/resnet.py``, whose name ends in the first digits of its SHA-256."""
    url = f"https://download.pytorch.org/models/{name}.pth"
    return OfficialWeights(url, sha256=name.rpartition("-")[2], shorter_side=shorter_side)


SOURCES: dict[str, dict[str, OfficialWeights]] = {
    "imagenet": {  # `paddle.vision.models.resnet.model_urls`
        name: OfficialWeights(f"https://paddle-hapi.bj.bcebos.com/models/{name}.pdparams", md5)
        for name, md5 in {
            "resnet18": "cf548f46534aa3560945be4b95cd11c4",
            "resnet34": "8d2275cf8706028345f78ac0e1d31969",
            "resnet50": "ca6f485ee1ab0492d38f323885b0ad80",
            "resnet101": "02f35f034ca3858e1e54d4036443c92d",
            "resnet152": "7ad16a2f1e7333859ff986138630fd7a",
            "resnext50_32x4d": "dc47483169be7d6f018fcbb7baf8775d",
            "resnext50_64x4d": "063d4b483e12b06388529450ad7576db",
            "resnext101_32x4d": "967b090039f9de2c8d06fe994fb9095f",
            "resnext101_64x4d": "98e04e7ca616a066699230d769d03008",
            "resnext152_32x4d": "18ff0beee21f2efc99c4b31786107121",
            "resnext152_64x4d": "77c4af00ca42c405fa7f841841959379",
            "wide_resnet50_2": "0282f804d73debdab289bd9fea3fa6dc",
            "wide_resnet101_2": "d4360a2d23657f059216f5d5a1a9ac93",
        }.items()
    },
    "imagenet:paddleclas": {
        **{f"resnet{n}_vb": _paddleclas(f"ResNet{n}") for n in (18, 34)},
        **{f"resnet{n}": _paddleclas(f"ResNet{n}") for n in (50, 101, 152)},
        **{f"resnet{n}_vd": _paddleclas(f"ResNet{n}_vd") for n in (18, 34, 200)},
        **{f"resnet{n}_d": _paddleclas(f"ResNet{n}_vd") for n in (50, 101, 152)},
    },
    "imagenet:ssld": {  # distilled by PaddleClas's SSLD (Cui et al. 2021, https://arxiv.org/abs/2103.05959)
        "resnet34_vd": _paddleclas("ResNet34_vd_ssld"),
        **{f"resnet{n}_d": _paddleclas(f"ResNet{n}_vd_ssld") for n in (50, 101)},
    },
    "imagenet:torchvision": {  # those that torchvision calls DEFAULT
        "resnet18": _torchvision("resnet18-f37072fd"),
        "resnet34": _torchvision("resnet34-b627a593"),
        "resnet50": _torchvision("resnet50-11ad3fa6", 232),
        "resnet101": _torchvision("resnet101-cd907fc2", 232),
        "resnet152": _torchvision("resnet152-f82ba261", 232),
        "resnext50_32x4d": _torchvision("resnext50_32x4d-1a0047aa", 232),
        "resnext101_32x8d": _torchvision("resnext101_32x8d-110c445d", 232),
        "resnext101_64x4d": _torchvision("resnext101_64x4d-173b62eb", 232),
        "wide_resnet50_2": _torchvision("wide_resnet50_2-9ba9bcbe", 232),
        "wide_resnet101_2": _torchvision("wide_resnet101_2-d733dc28", 232),
    },
}
"""What `pretrained` may be called, and the files by the network's name."""


def is_official(pretrained: str | Path | None) -> bool:
    """Return whether these are official ImageNet weights, known or not, rather than the package's or a file's."""
    return pretrained == "imagenet" or str(pretrained).startswith("imagenet:")


def official_file(source: str, name: str) -> OfficialWeights:
    """Return the file of the network `name` in `SOURCES`.

    Raises:
        UsageError: there is no such source, or it has none for this network.
    """
    if source not in SOURCES:
        raise UsageError(f"{shown(source)}: expected {', '.join(SOURCES)}{did_you_mean(source, SOURCES)}")
    name = ALIASES.get(name, name)
    if name not in SOURCES[source]:
        elsewhere = [each for each, files in SOURCES.items() if name in files]
        raise UsageError(
            f'no official "{source}" weights for {name or "a network without a name"}; there are some for '
            f"{', '.join(SOURCES[source])}" + (f"; {name} has {', '.join(elsewhere)}" if elsewhere else "")
        )
    return SOURCES[source][name]


def official_weights(source: str, name: str, progress: download.ProgressFn | None = None) -> Path:
    """Return a network's file of a source in `SOURCES`; download it if missing.

    Those of ``"imagenet"`` are in Paddle's own cache ``~/.cache/paddle/hapi/weights/``, all others in
    ``~/.cache/paddle_resnet/weights/``.

    Raises:
        UsageError: there are none for this network, they cannot be downloaded, or the file there is not the official
            one, or no longer the one that was first downloaded.
        RunFailure: the file cannot be written.
    """
    file = official_file(source, name)
    own_cache = home_folder() / ".cache" / "paddle_resnet"
    path = (paddle_cache("hapi") if source == "imagenet" else own_cache) / "weights" / file.name
    if not path.exists():
        logger.info("downloading %s to %s", file.url, path)
        try:
            download.fetch(file.url, path, file.md5, progress, sha256=file.sha256)
        except UsageError as error:
            raise UsageError(f"{error}; or train from scratch: -o model.pretrained=null") from error
    elif difference := download.checksum_difference(path, file.md5, file.sha256):
        raise _not_official(path, difference)
    if file.md5 is None and file.sha256 is None:
        _compare_with_first(path)
    return path


def _compare_with_first(path: Path) -> None:
    """Check that a file without a published checksum is still the first one: its SHA-256 is kept beside it."""
    record, found = path.with_name(f"{path.name}.sha256"), sha256_of(path)
    if not record.exists():
        write_text(record, f"{found}  {path.name}\n")
        logger.info(
            "%s: no checksum is published; its SHA-256 %s is kept in %s and compared from now on",
            path, found, record.name,
        )  # fmt: skip
    elif (first := record.read_text(encoding="utf-8", errors="replace").partition(" ")[0]) != found:
        raise _not_official(path, f"SHA-256 is {found}, at first it was {shown(first)} ({record.name})")


def _not_official(path: Path, difference: str) -> UsageError:
    return UsageError(f"{path}: {difference}; delete it to download it again, or give its path to load it as your own")
