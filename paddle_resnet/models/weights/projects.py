"""The names that other projects give the layers of their ResNets, as tables.

A table has a project's names of layers beside those here. Numbers stand in braces: ``{stage}`` and ``{conv}`` count
from 1, ``{block}`` in its stage from 0; ``{stage0}`` and ``{conv0}`` count from 0, ``{stage2}`` from 2, ``{flat}``
counts a network's blocks from 0, and ``{label}`` is stage and block as in ``res2a`` or ``res4b12``. Heads need no
table, see `name_head`.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Project:
    """One project's names."""

    name: str
    source: str  # where it defines them
    layers: Mapping[str, str]  # its name of a layer: the name here; all others have the same name
    note: str = ""  # what the names do not tell, as a sentence on the file

    def rename(self, names: Sequence[str]) -> dict[str, str]:
        """Map a file's names of tensors to those here, as far as their layers are in the table.

        The mapping is empty if the file lacks one of the table's layers: then its names are not this project's.
        """
        text = "\n".join(names)
        if not all(_pattern(theirs).search(text) for theirs in self.layers):
            return {}
        # PaddleClas's blocks that begin a stage: the first one, and each with a shortcut of its own.
        starts = sorted({0, *(int(block) for block in re.findall(r"^blocks\.(\d{1,4})\.short\.conv\.", text, re.M))})
        return {
            name: f"{ours.format(**_numbers_here(fields, starts))}.{tensor}"
            for theirs, ours in self.layers.items()
            for name, tensor, fields in _tensors(theirs, text)
        }

    def restore(self, names: Sequence[str]) -> dict[str, str]:
        """Map the names of a whole network's tensors to this project's, the inverse of `rename`; without labels."""
        text = "\n".join(names)
        blocks = sorted({(int(a), int(b)) for a, b in re.findall(r"^layer(\d+)\.(\d+)\.", text, re.M)})
        mapping = {}
        for theirs, ours in self.layers.items():
            for name, tensor, fields in _tensors(ours, text):
                numbers = {key: int(value) for key, value in fields.items()}
                if "block" in numbers:
                    flat = blocks.index((numbers["stage"], numbers["block"]))
                    numbers |= {"flat": flat, "stage0": numbers["stage"] - 1, "conv0": numbers.get("conv", 1) - 1}
                mapping[name] = f"{theirs.format(**numbers)}.{tensor}"
        return mapping


def _tensors(layer: str, text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the tensors of layers of that name, in lines of text: name, last part, and the numbers in braces."""
    for found in _pattern(layer).finditer(text):
        fields = found.groupdict()
        yield found[0], fields.pop("tensor"), fields


@cache
def _pattern(layer: str) -> re.Pattern[str]:
    """Compile a layer's name with numbers in braces to a pattern of its tensors' names, each a line."""
    escaped = re.escape(layer).replace(r"\{", "{").replace(r"\}", "}")
    labelled = escaped.replace("{label}", "(?P<label>[2-9][a-z][0-9]{0,2})")
    numbered = re.sub(r"\{(\w+)\}", "(?P<\\1>[0-9]{1,4})", labelled)
    return re.compile(rf"^{numbered}\.(?P<tensor>\w+)$", re.MULTILINE)


def _numbers_here(fields: Mapping[str, str], starts: Sequence[int]) -> dict[str, int]:
    """Return stage, block and convolution as the names here count them; `starts` are the first blocks of stages."""
    numbers: dict[str, int] = {}
    for key, text in fields.items():
        if key == "label":  # b is block 1, as b1 is
            numbers |= {"stage": int(text[0]) - 1, "block": int(text[2:] or ord(text[1]) - ord("a"))}
        elif key == "flat":
            stage = bisect(starts, int(text))
            numbers |= {"stage": stage, "block": int(text) - starts[stage - 1]}
        else:
            first = re.search(r"\d*$", key)[0] or "1"  # type: ignore[index]
            numbers[key.rstrip("0123456789")] = int(text) + 1 - int(first)
    return numbers


def _paddleclas(
    source: str, stem: Sequence[str], block: str, convolution: str, norm: str, *, pools: bool = False, note: str = ""
) -> Project:
    """Make a table of PaddleClas's ResNet, whose stem has one or three convolutions; in vd, shortcuts pool first."""
    deep = [("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")]
    here = deep if len(stem) == 3 else [("conv1", "bn1")]
    first = 1 if pools else 0
    layers: dict[str, str] = {}
    for layer, (ours, ours_norm) in zip(stem, here, strict=True):
        layers |= {f"{layer}.{convolution}": ours, f"{layer}.{norm}": ours_norm}
    for layer, ours, ours_norm in (
        ("conv{conv0}", "conv{conv}", "bn{conv}"),
        ("short", f"downsample.{first}", f"downsample.{first + 1}"),
    ):
        layers[f"{block}.{layer}.{convolution}"] = f"layer{{stage}}.{{block}}.{ours}"
        layers[f"{block}.{layer}.{norm}"] = f"layer{{stage}}.{{block}}.{ours_norm}"
    return Project("PaddleClas", source, layers, note)


def _hugging_face(prefix: str) -> Project:
    kinds = {
        "convolution": ("conv1", "conv{conv}", "downsample.0"),
        "normalization": ("bn1", "bn{conv}", "downsample.1"),
    }
    layers: dict[str, str] = {}
    for kind, (stem, layer, shortcut) in kinds.items():
        block = f"{prefix}encoder.stages.{{stage0}}.layers.{{block}}"
        layers[f"{prefix}embedder.embedder.{kind}"] = stem
        layers[f"{block}.layer.{{conv0}}.{kind}"] = f"layer{{stage}}.{{block}}.{layer}"
        layers[f"{block}.shortcut.{kind}"] = f"layer{{stage}}.{{block}}.{shortcut}"
    return Project("Hugging Face", "huggingface/transformers, models/resnet/modeling_resnet.py", layers)


def _cifar100(convolutions: int) -> Project:
    """Make the table of pytorch-cifar100's basic block (2 convolutions) or bottleneck (3)."""
    block, ours = "conv{stage2}_x.{block}", "layer{stage}.{block}"
    layers = {"conv1.0": "conv1", "conv1.1": "bn1"}
    for index in range(convolutions):
        layers[f"{block}.residual_function.{3 * index}"] = f"{ours}.conv{index + 1}"
        layers[f"{block}.residual_function.{3 * index + 1}"] = f"{ours}.bn{index + 1}"
    layers |= {f"{block}.shortcut.{number}": f"{ours}.downsample.{number}" for number in range(2)}
    return Project("pytorch-cifar100", "weiaicunzai/pytorch-cifar100, models/resnet.py", layers)


_BLOCK, _RES = "layer{stage}.{block}", "res{stage2}.{block}"
_LEGENDARY = "PaddlePaddle/PaddleClas, ppcls/arch/backbone/legendary_models/resnet.py"
_EARLIER = "PaddlePaddle/PaddleClas before 2.2, ppcls/modeling/architectures/resnet"
_PYTORCH_CIFAR = "kuangliu/pytorch-cifar, models/"
_BB_DEEP = (("conv1_1", "conv1_2", "conv1_3"), "bb_{stage0}_{block}", "_conv", "_batch_norm")
_VC_OR_VD = (
    "it may be of ResNet_vd before PaddleClas 2.2 (resnet50_vd) or of ResNet_vc (resnet50 with stem deep), "
    "which has the same names and no pooling in its shortcuts; check the accuracy"
)

SAME_NAMES = Project("torchvision", "torchvision/models/resnet.py; paddle.vision's and timm's ResNets too", {})
PADDLECLAS_VB = _paddleclas(_LEGENDARY, ["stem.0"], "blocks.{flat}", "conv", "bn")
PADDLECLAS_VD = _paddleclas(_LEGENDARY, ["stem.0", "stem.1", "stem.2"], "blocks.{flat}", "conv", "bn", pools=True)
PROJECTS: tuple[Project, ...] = (
    SAME_NAMES,
    PADDLECLAS_VD,
    PADDLECLAS_VB,
    _paddleclas(f"{_EARLIER}.py", ["conv"], "bb_{stage0}_{block}", "_conv", "_batch_norm"),
    _paddleclas(f"{_EARLIER}_vd.py", *_BB_DEEP, pools=True, note=_VC_OR_VD),
    _paddleclas("PaddlePaddle/PaddleClas, ppcls/arch/backbone/model_zoo/resnet_vc.py", *_BB_DEEP, note=_VC_OR_VD),
    _paddleclas(f"{_EARLIER}.py", ["conv"], "res{label}", "_conv", "_batch_norm"),  # PaddleNLP's ERNIE-Layout has it
    _hugging_face("resnet."),
    _hugging_face(""),
    Project(
        "pytorch-cifar",
        f"{_PYTORCH_CIFAR}resnet.py",
        {f"layer{{stage}}.{{block}}.shortcut.{n}": f"layer{{stage}}.{{block}}.downsample.{n}" for n in range(2)},
    ),
    Project(
        "pytorch-cifar",
        f"{_PYTORCH_CIFAR}preact_resnet.py",
        {"layer{stage}.{block}.shortcut.0": "layer{stage}.{block}.downsample"},
    ),
    _cifar100(3),
    _cifar100(2),
    Project(
        "nn.Sequential",
        "torchvision's children in a list, as fastai has them: nn.Sequential(*list(resnet.children())[:-2])",
        {"0": "conv1", "1": "bn1"}
        | {
            f"{{stage4}}.{{block}}.{layer}": f"{_BLOCK}.{layer}"
            for layer in ("conv{conv}", "bn{conv}", "downsample.0", "downsample.1")
        },
    ),
    Project(
        "Detectron2",
        "facebookresearch/detectron2, tools/convert-torchvision-to-d2.py",
        {"stem.conv1": "conv1", "stem.conv1.norm": "bn1"}
        | {f"{_RES}.conv{{conv}}": f"{_BLOCK}.conv{{conv}}", f"{_RES}.conv{{conv}}.norm": f"{_BLOCK}.bn{{conv}}"}
        | {f"{_RES}.shortcut": f"{_BLOCK}.downsample.0", f"{_RES}.shortcut.norm": f"{_BLOCK}.downsample.1"},
        "its names do not tell STRIDE_IN_1X1; the bottlenecks here are those of False, as in torchvision's weights; "
        "check the accuracy",
    ),
)
"""Tried in this order; of those that fit equally well the first counts."""
