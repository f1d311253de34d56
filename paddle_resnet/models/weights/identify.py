"""What a weights file is: whose names it has, which network of the table its tensors fit, and how they are adapted.

A head may have another name, and shortcuts may add zeros on both sides: He et al. 2015, section 4.2, do not say where
option A adds its channels of zeros. Here they follow the others, as in fb.resnet.torch; akamaster's
pytorch_resnet_cifar10 adds half of them on each side. The order of a network's channels is arbitrary, so its weights
are those of a network here with the channels in another order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.naming import Arrays, NamedArrays, candidates
from paddle_resnet.models.weights.projects import SAME_NAMES
from paddle_resnet.models.weights.weights_file import WeightsFile, WeightsSource, read_weights_file
from paddle_resnet.zoo.matching import matching_models
from paddle_resnet.zoo.registry import ResNetEntry, model_entry
from paddle_resnet.zoo.shapes import Shape


@dataclass(frozen=True)
class IdentifiedFile:
    """A weights file, with its tensors as a network here has them."""

    file: WeightsFile
    named: NamedArrays
    arrays: dict[str, np.ndarray]  # by the names here, in Paddle's layout
    models: tuple[str, ...]  # the networks that they fit; none: an unknown one, whose head and padding stay
    head: tuple[str, ...]  # what the file calls its head, if it is not ``fc``


def identify(source: WeightsSource) -> IdentifiedFile:
    """Read a weights file and find out what it is; raise `UsageError` if it cannot be read or ``#pad`` has no use."""
    file = read_weights_file(source.path, source.take)
    unknown = None
    for named in candidates(file.entries, file.layout, len(file.entries) // 4):
        models = matching_models({name: array.shape for name, array in named.arrays.items()})
        if models:
            return _as_network(file, named, models, source)
        if unknown is None or (named.project is not SAME_NAMES and unknown.project is SAME_NAMES):
            unknown = named
    assert unknown is not None
    require_padded(False, source.options.get("pad"), str(source.path))
    return IdentifiedFile(file, unknown, unknown.arrays, (), ())


def _as_network(
    file: WeightsFile, named: NamedArrays, models: Mapping[str, Mapping[str, Shape]], source: WeightsSource
) -> IdentifiedFile:
    first, body = next(iter(models.items()))
    arrays, head = name_head(named.arrays, body)
    entry = model_entry(first.partition(" ")[0])
    padded = isinstance(entry, ResNetEntry) and entry.shortcut == "zero_pad" and entry.block == "basic"
    require_padded(padded, source.options.get("pad"), str(source.path))
    if padded and pads_both_sides(file, head, source.options.get("pad"), str(source.path)):
        arrays = from_both_sides(arrays)
    return IdentifiedFile(file, named, arrays, tuple(models), head)


def log_choice(file: WeightsFile, named: NamedArrays, label: str) -> None:
    """Log which of a file's tensors are taken, and which are not, unless all are."""
    taken = [part for part in (file.place, named.prefix.rstrip(".")) if part]
    if taken:
        logger.info("%s: takes %s", label, " / ".join(map(shown, taken)))
    if others := [*file.others, *(prefix.rstrip(".") for prefix in named.rivals)]:
        logger.info("%s: holds other weights: %s; FILE#NAME takes them", label, listed(others))
    if left_out := [*named.left_out, *file.left_out]:
        logger.info("%s: leaves out %s", label, listed(left_out))
    if named.project is not SAME_NAMES:
        logger.info("%s: has the names of %s", label, named.project.name)
    if named.project.note:
        logger.warning("warning: %s: %s", label, named.project.note)


def unusual_numbers(arrays: Mapping[str, np.ndarray]) -> str:
    """Return in words the types of the numbers, unless all are float32, and which tensors have `bad_numbers`."""
    types = sorted({str(array.dtype) for array in arrays.values()})
    bad = {name: count for name, array in arrays.items() if (count := bad_numbers(array))}
    facts = [", ".join(types)] if types != ["float32"] else []
    if bad:
        facts.append(f"{sum(bad.values()):,} NaN or infinite ones, in {listed([*bad])}")
    return "; ".join(facts)


def bad_numbers(array: np.ndarray) -> int:
    """Return how many numbers of a tensor are NaN or infinite, or would be in float32."""
    return array.size - int((np.abs(array) <= np.finfo(np.float32).max).sum())


def listed(names: Sequence[str], limit: int = 80) -> str:
    """Return the first three names of a file, each cut at `limit`."""
    return ", ".join([*(shown(name, limit) for name in names[:3]), *(["..."] if len(names) > 3 else [])])


HEAD = ("fc.weight", "fc.bias")


def name_head(arrays: Arrays, shapes: Mapping[str, Sequence[int]]) -> tuple[Arrays, tuple[str, ...]]:
    """Find a head that is not called ``fc``: what is left over where all other tensors of the network are there.

    Args:
        arrays: by the names here, in Paddle's layout.
        shapes: the network's tensors.

    Returns:
        The arrays and the names of the head's layers; none if it is called ``fc`` or there is no head. A head of one
        linear layer on the network's features is renamed to ``fc``, any other one left out.
    """
    body = {name: shape for name, shape in shapes.items() if name not in HEAD}
    rest = [name for name in arrays if name not in body]
    whole = all(name in arrays and list(arrays[name].shape) == list(shape) for name, shape in body.items())
    is_head = all(arrays[name].ndim <= 2 for name in rest) and any(arrays[name].ndim == 2 for name in rest)
    layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in rest))
    if not whole or not is_head or "fc" in layers:
        return arrays, ()
    named = {name: array for name, array in arrays.items() if name in body}
    weight, bias = f"{layers[0]}.weight", f"{layers[0]}.bias"
    is_linear = set(rest) == {weight, bias} and arrays[bias].shape == arrays[weight].shape[1:]
    if is_linear and (HEAD[0] not in shapes or shapes[HEAD[0]][0] == len(arrays[weight])):
        named |= {HEAD[0]: arrays[weight], HEAD[1]: arrays[bias]}
    return named, layers


def from_both_sides(arrays: Arrays) -> Arrays:
    """Reorder the channels of a network whose shortcuts add zeros on both sides, so that they are added at the end.

    The arrays are all tensors of a network of `BasicBlock`, by the names here; the head may be missing.
    """
    moved = dict(arrays)

    def reorder(layer: str, tensors: Sequence[str] = ("weight",), axis: int = 0) -> None:
        for name in (f"{layer}.{tensor}" for tensor in tensors):
            if name in moved:
                moved[name] = moved[name].take(order, axis)

    blocks = sorted({(int(found[1]), int(found[2])) for found in map(_BLOCK.match, arrays) if found})
    order = np.arange(len(arrays["bn1.weight"]))  # order[k] is the channel there that is channel k here
    for stage, index in blocks:
        block = f"layer{stage}.{index}"
        reorder(f"{block}.conv1", axis=1)
        kept, channels = len(order), len(arrays[f"{block}.bn2.weight"])
        before = (channels - kept) // 2
        order = np.concatenate([order + before, np.arange(before), np.arange(before + kept, channels)])
        reorder(f"{block}.conv2")
        reorder(f"{block}.bn2", ("weight", "bias", "_mean", "_variance"))
    reorder("fc")  # its weight is [in, out]
    return moved


def require_padded(padded: bool, pad: str | None, label: str) -> None:
    """Raise a `UsageError` if a user says where shortcuts add zeros, of a network that has no such shortcuts."""
    if pad is not None and not padded:
        raise UsageError(f"{label}#pad={pad}: this network has no shortcuts that add channels of zeros")


_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")


def pads_both_sides(file: WeightsFile, head: Sequence[str], pad: str | None, label: str) -> bool:
    """Return whether the shortcuts of a file's network add their zeros on both sides; log what is assumed.

    The shortcuts have no weights. `head` is what the file calls its head (`name_head`), and `pad` what the user says,
    ``"both"``, ``"end"`` or nothing.
    """
    if pad is not None or file.written_here or (file.layout == "paddle" and not head):
        return pad == "both"
    both = tuple(head) == ("linear",)
    as_others = "on both sides, as in pytorch_resnet_cifar10, whose head is called linear too"
    logger.warning(
        f"warning: {label} does not say where the shortcuts, which have no weights, add channels of zeros; assumed: "
        f"{as_others if both else 'at the end, not on both sides'}; check the accuracy, and if it is wrong write "
        f"{Path(label).name}#pad={'end' if both else 'both'}"
    )
    return both
