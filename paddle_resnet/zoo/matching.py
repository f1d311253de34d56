"""Which network of the table has tensors of given names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from paddle_resnet.zoo.registry import ModelEntry, ResNetEntry, Stem, list_models, model_entry
from paddle_resnet.zoo.shapes import Shape, state_shapes

_ENOUGH = 0.5  # the share of equal tensors above which a network is worth naming


def matching_models(shapes: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Shape]]:
    """Return the networks that have these tensors, the head and its name aside; first those with their own stem.

    The values are the networks' tensors without the head. A network with another stem than the table's is named as
    ``resnet18 (model.stem: cifar)``. Networks that differ only in layers without weights, as ``resnet20`` and
    ``plain20``, have the same tensors.
    """
    found = {name: tuple(shape) for name, shape in shapes.items()}
    matches = {}
    for label, body in _bodies(*_stem(found)).items():
        has_body = all(found.get(name) == shape for name, shape in body.items())
        if has_body and all(len(shape) <= 2 for name, shape in found.items() if name not in body):
            matches[label] = body
    return dict(sorted(matches.items(), key=lambda match: "(" in match[0]))


def describe_match(shapes: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> str:
    """Say in words whose tensors these probably are, as they are not just those of the network `wanted`."""
    own, matches = _body(wanted), matching_models(shapes)
    if own in matches.values():
        return "all other tensors are those of the network: save them alone"
    another = "probably the weights of another architecture"
    if matches:
        return f"{another}: its shapes are those of {' or '.join(matches)}: set model.name to that"
    found = {name: tuple(shape) for name, shape in shapes.items()}
    share = {
        label: sum(found.get(name) == shape for name, shape in body.items()) / max(len(body), len(found))
        for label, body in {"this one": own, **_bodies(*_stem(found))}.items()
    }
    closest = max(share, key=lambda label: share[label])
    if share[closest] <= _ENOUGH:
        return f"{another}: no known network has such shapes"
    if closest == "this one":
        return "probably weights of this network, but incomplete or changed"
    return f"{another}: the closest network is {closest}"


def _body(shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Return a network's tensors without the head."""
    return {name: tuple(shape) for name, shape in shapes.items() if not name.startswith("fc.")}


@lru_cache(maxsize=2)
def _bodies(stem: Stem | None, channels: int | None) -> dict[str, dict[str, Shape]]:
    """Return each network's tensors without the head, with this stem and these input channels."""
    bodies = {}
    for name in list_models():
        entry: ModelEntry = model_entry(name)
        label = name
        # A stem with pooling after it has the weights of that without.
        if isinstance(entry, ResNetEntry) and stem and entry.stem.removesuffix("_pool") != stem:
            entry, label = replace(entry, stem=stem), f"{name} (model.stem: {stem})"
        bodies[label] = _body(state_shapes(entry, in_channels=channels))
    return bodies


def _stem(found: Mapping[str, Shape]) -> tuple[Stem | None, int | None]:
    """Return the stem that has the first convolution's shape, and its input channels; None: there is no such stem."""
    stems: dict[tuple[str, int], Stem] = {
        ("conv1", 7): "imagenet",
        ("conv1", 3): "cifar",
        ("conv1.0", 3): "deep",
        ("conv1.0", 2): "whitening",
    }
    for (layer, kernel), stem in stems.items():
        shape = found.get(f"{layer}.weight", ())
        if len(shape) == 4 and shape[2:] == (kernel, kernel):
            return stem, shape[1] or None
    return None, None
