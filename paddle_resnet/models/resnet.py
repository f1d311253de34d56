"""`ResNet`, the one class of all residual networks here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import paddle
from paddle import nn

from paddle_resnet.models.blocks import DEFAULT_OPTIONS, Block, BlockOptions, Shortcut, projection_shortcut
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.models.stems import stem_convolution, stem_pool
from paddle_resnet.zoo.registry import Stem


class ResNet(ImageClassifier):
    """A stem, stages of residual blocks, global average pooling and a linear head (He et al. 2015, table 1).

    Names and shapes in its state dict equal those of `paddle.vision.models.ResNet`. With pre-activation blocks (He et
    al. 2016), the stem's BatchNorm and ReLU activate the first block's input, before the max-pooling as in
    fb.resnet.torch, and one more pair (`final_bn`, `final_relu`) follows the last stage.

    Args:
        block: the kind of residual block.
        depths: blocks in each stage; every stage but the first halves H and W.
        widths: the blocks' width in each stage; a stage has ``width * block.expansion`` channels.
        num_classes: outputs of the head.
        in_channels: channels of the images.
        stem: ``"imagenet"`` is a 7x7 convolution and max-pooling, to 1/4 of H and W; ``"deep"`` has three 3x3
            convolutions instead of the 7x7 (ResNet-C); ``"cifar"`` is a 3x3 convolution that keeps H and W (section
            4.2), ``"cifar_pool"`` the same before max-pooling, to 1/2, as is ``"whitening"``, see `WhiteningStem`.
        shortcut: makes the shortcuts of the blocks that change shape.
        stem_channels: of the stem's output; None: the first stage's width.
        block_options: options of all blocks.
        first_projection: the first block has a shortcut of its own even if it keeps its shape, as in PaddleClas.
        outer_activations: False: no BatchNorm and ReLU after the stem and after the last stage; for pre-activation
            blocks, which activate their input themselves.
        dropout: probability that a feature is dropped, before `fc`, or in the blocks if `dropout_in_blocks`.
        dropout_in_blocks: as in wide ResNets (Zagoruyko and Komodakis 2016, section 2.4).
        stochastic_depth: probability that the last block's residual branch is dropped in training, growing linearly
            from the first block (Huang et al. 2016); see `StochasticDepth`.
        zero_init_residual: residual branches start at zero, see `ResidualBlock.zero_init_last`.
    """

    stem_names = ("conv1", "bn1", "relu", "maxpool")

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        *,
        widths: Sequence[int],
        num_classes: int,
        in_channels: int,
        stem: Stem,
        shortcut: Shortcut = projection_shortcut,
        stem_channels: int | None = None,
        block_options: BlockOptions = DEFAULT_OPTIONS,
        first_projection: bool = False,
        outer_activations: bool = True,
        dropout: float = 0.0,
        dropout_in_blocks: bool = False,
        stochastic_depth: float = 0.0,
        zero_init_residual: bool = False,
    ) -> None:
        num_features = widths[-1] * block.expansion
        stage_names = [f"layer{number}" for number in range(1, len(depths) + 1)]
        super().__init__(num_classes, in_channels, num_features, stage_names)
        channels = widths[0] if stem_channels is None else stem_channels
        self.conv1 = stem_convolution(stem, in_channels, channels, block_options.bias)
        self.maxpool = stem_pool(stem)
        self.bn1 = nn.BatchNorm2D(channels) if outer_activations else nn.Identity()
        self.relu = nn.ReLU() if outer_activations else nn.Identity()

        if dropout_in_blocks:
            block_options, dropout = replace(block_options, dropout=dropout), 0.0
        blocks, number = sum(depths), 0
        for name, depth, width in zip(self.stage_names, depths, widths, strict=True):
            stage = nn.Sequential()
            for index in range(depth):
                first_in_network = name == "layer1" and index == 0
                number += 1
                stride = 2 if index == 0 and not first_in_network else 1
                options = replace(
                    block_options,
                    activated=block.pre_activation and first_in_network and outer_activations,
                    stochastic_depth=stochastic_depth * (number / blocks),  # the paper's linear decay, equation 4
                )
                residual_block = block(channels, width, stride, shortcut, options)
                if first_projection and first_in_network:
                    residual_block.downsample = shortcut(channels, width * block.expansion, stride)
                stage.add_sublayer(str(index), residual_block)
                channels = width * block.expansion
            self.add_sublayer(name, stage)

        activates_last = block.pre_activation and outer_activations
        self.final_bn = nn.BatchNorm2D(channels) if activates_last else nn.Identity()
        self.final_relu = nn.ReLU() if activates_last else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2D((1, 1))
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(num_features, num_classes)
        if zero_init_residual:
            for stage_name in self.stage_names:
                for residual_block in getattr(self, stage_name):
                    residual_block.zero_init_last()

    def forward_stages(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Return each stage's output; with pre-activation blocks, before the next activation."""
        return list(self._stage_outputs(x))

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the last stage's output, activated; shapes as in `ImageClassifier`."""
        for output in self._stage_outputs(x):
            x = output
        return self.final_relu(self.final_bn(x))

    def forward_head(self, features: paddle.Tensor) -> paddle.Tensor:
        return self.forward_pooled(self.flatten(self.avgpool(features)))

    def forward_pooled(self, x: paddle.Tensor) -> paddle.Tensor:
        """Means over H and W, ``[N, num_features]``, to logits ``[N, num_classes]``."""
        return self.fc(self.dropout(x))

    def _stage_outputs(self, x: paddle.Tensor) -> Iterator[paddle.Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = getattr(self, name)(x)
            yield x
