"""Base class of all networks: freezing, a new head, parameter groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import paddle
from paddle import nn

from paddle_resnet.errors import UsageError, require_count

RUNNING_STATISTICS = ("_mean", "_variance")  # BatchNorm's, which Paddle keeps as parameters


class ImageClassifier(nn.Layer):
    """A stem, stages ``layer1``, ``layer2``, ..., and a head that ends in the linear layer `fc`.

    Attributes:
        model_name: the name given to `create_model`; empty for a network made otherwise.
        num_classes: outputs of the head; 0: no head, see `remove_classifier`.
        in_channels: channels of the images.
        num_features: inputs of `fc`.
        stage_names: the stages' names in order.
        stem_names: names of the layers before the first stage.
    """

    model_name = ""
    stem_names: tuple[str, ...] = ()

    def __init__(self, num_classes: int, in_channels: int, num_features: int, stage_names: Iterable[str]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_features = num_features
        self.num_classes = num_classes
        self.stage_names = list(stage_names)
        self._frozen_sections: tuple[str, ...] = ()

    @property
    def include_top(self) -> bool:
        """Whether the network has a head and returns logits; without one, it returns features."""
        return self.num_classes > 0

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images float32 ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``; without a head, to features."""
        features = self.forward_features(x)
        return self.forward_head(features) if self.include_top else features

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images float32 ``[N, in_channels, H, W]`` to the head's input ``[N, channels, H', W']``."""
        raise NotImplementedError

    def forward_stages(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Map images float32 ``[N, in_channels, H, W]`` to each stage's output ``[N, channels, H', W']``."""
        raise NotImplementedError

    def forward_head(self, features: paddle.Tensor) -> paddle.Tensor:
        """Map features ``[N, channels, H', W']`` to logits ``[N, num_classes]``; headless, to ``[N, num_features]``."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Replace `fc` with a new linear layer; create the optimizer after this call.

        Raises:
            UsageError: `num_classes` is no whole number of at least 1.
        """
        require_count("num_classes", num_classes)
        # Own names: an optimizer keys its state by parameter name, and Paddle would count from 0 again.
        with paddle.utils.unique_name.guard("classifier_"):
            self.fc = nn.Linear(self.num_features, num_classes)
        self.num_classes = num_classes

    def remove_classifier(self) -> None:
        """Remove `fc`: the network returns features from now on."""
        self.fc = nn.Identity()
        self.num_classes = 0

    def freeze(self, until: str | None) -> None:
        """Freeze the stem and the stages up to and including `until`; let all others train.

        Frozen parameters take no gradient, and frozen layers, BatchNorm's statistics included, stay in eval mode, also
        after `train()` of this network. A larger layer that contains the network must call `train()` of the network.

        Args:
            until: ``"stem"`` or a stage's name, such as ``"layer2"``; None: unfreeze everything.

        Raises:
            UsageError: there is no such section.
        """
        sections = self._sections()
        names = [name for name in sections if name != "head"]
        if until is not None and until not in names:
            raise UsageError(f'freeze: {self.model_name or "the network"} has no "{until}"; its parts are {names}')
        # Whitening filters never train.
        fixed = {id(layer[0].weight) for layer in self.sublayers() if getattr(layer, "whitened", False)}
        self._frozen_sections = tuple(names[: names.index(until) + 1]) if until is not None else ()
        for name, layers in sections.items():
            for parameter in _learned(layers):
                parameter.stop_gradient = name in self._frozen_sections or id(parameter) in fixed
            for layer in _all_layers(layers):
                layer.training = self.training and name not in self._frozen_sections

    def train(self, *args: Any, **kwargs: Any) -> Any:
        result = super().train(*args, **kwargs)
        sections = self._sections()
        for name in self._frozen_sections:
            # Not `eval()`: it sets Paddle's tracer, and so the whole process, to evaluation.
            for layer in _all_layers(sections[name]):
                layer.training = False
        return result

    def layer_groups(self) -> list[list[paddle.Tensor]]:
        """Group the learned parameters for layer-wise learning rates: stem, each stage, head; frozen ones included."""
        groups = [list(_learned(layers)) for layers in self._sections().values()]
        return [group for group in groups if group]

    def _sections(self) -> dict[str, list[nn.Layer]]:
        """Return the layers of stem, stages and head in order."""
        sections: dict[str, list[nn.Layer]] = {name: [] for name in ("stem", *self.stage_names, "head")}
        for name, layer in self.named_children():
            section = "stem" if name in self.stem_names else name if name in self.stage_names else "head"
            sections[section].append(layer)
        return {name: layers for name, layers in sections.items() if layers}


def count_parameters(network: nn.Layer) -> int:
    """Count the learned parameters, frozen ones included. Paddle's `parameters()` also has BatchNorm's statistics."""
    return sum(parameter.size for parameter in _learned([network]))


def _learned(layers: Iterable[nn.Layer]) -> Iterator[paddle.Tensor]:
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if name.rsplit(".", 1)[-1] not in RUNNING_STATISTICS:
                yield parameter


def _all_layers(layers: Iterable[nn.Layer]) -> Iterator[nn.Layer]:
    for layer in layers:
        yield from layer.sublayers(include_self=True)
