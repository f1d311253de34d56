"""Convert the weights of a ResNet between the files and names of Paddle, PyTorch and PaddleClas. None is needed.

examples:
  paddle-resnet convert-weights resnet18.pth resnet18.pdparams                     for paddle.load
  paddle-resnet convert-weights resnet18.pdparams resnet18.safetensors             Paddle's names
  paddle-resnet convert-weights best.pdparams best.safetensors --names torch       for PyTorch
  paddle-resnet convert-weights best.pdparams clas.pdparams --names paddleclas     for PaddleClas

IN is a file of torch.save (any version since 0.2), paddle.save or safetensors, with any suffix; OUT is a new .pdparams
or .safetensors file. IN#ema takes the moving average in a checkpoint. Training needs no conversion: model.pretrained
takes any of these files.

  --names paddle  linear weights [in, out], statistics _mean and _variance
  --names torch   linear weights [out, in], running_mean, running_var, num_batches_tracked, as torchvision names them:
                  model.load_state_dict(safetensors.torch.load_file("best.safetensors"))
  --names paddleclas  as PaddleClas's ResNets name them (resnet50_d is its ResNet50_vd); its ResNet18 and ResNet34 take
                  the weights of resnet18_vb and resnet34_vb, those of resnet18 with use_first_short_conv=False

Files are read as data: no code in them runs.
"""

from __future__ import annotations

import argparse

from paddle_resnet.cli import parsing, program

OWNERS = {"paddle": "Paddle's", "torch": "PyTorch's", "paddleclas": "PaddleClas's"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=parsing.path, help="the weights to read")
    parser.add_argument("destination", metavar="OUT", type=parsing.path, help="the file to write")
    parser.add_argument("--names", choices=list(OWNERS), default="paddle", help="default: paddle")


def main(arguments: argparse.Namespace) -> None:
    program.prepare()
    from paddle_resnet.models import convert_weights

    path = arguments.destination
    tensors = convert_weights(arguments.source, path, arguments.names)
    print(f"wrote {path}: {tensors} tensors under {OWNERS[arguments.names]} names, {path.stat().st_size:,} bytes")
