"""Show the networks: a table of all, one network's shapes from the image to the logits, or what a weights file holds.

examples:
  paddle-resnet models                                   the table
  paddle-resnet models resnet18 --classes 10             each stage and block, with the shape of its output
  paddle-resnet models resnet18_d2l --size 96            for images of 96 x 96
  paddle-resnet models resnet50 --layers                 every single layer
  paddle-resnet models resnet18 --netron                 write the graph as ONNX and show it in the browser
  paddle-resnet models weights.pth                       whose names it has, which network it fits, what is left out

Parameters are the trainable ones, for the network's default number of classes (ImageNet networks 1,000, others 10).
GMACs (MMACs) are billions (millions) of multiply-adds of convolutions and linear layers for one image of the given
size, which many papers call FLOPs; biases, BatchNorm and additions are not counted. Layers are the convolutions and
linear layers from image to logits, without those of shortcuts (the names of wide ResNets count them). Weights are what
model.pretrained of a config may be: imagenet, imagenet:paddleclas, ... are official ones, cifar10 those in the package,
with their top-1 on the whole test split, of a single run each. Shapes are NxCxHxW.

--netron serves until Ctrl-C; it needs: pip install -r requirements/onnx.txt (with Paddle 2.6: onnx_paddle2.txt).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import UsageError, command, shown

MOST = 1_000_000  # pixels, classes or channels that are counted without an overflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME|FILE", nargs="?", help="a network of the table; default: the table")
    count = parsing.checked(parsing.whole, lambda value: 1 <= value <= MOST, f"a whole number from 1 to {MOST:,}")
    numbers = {"size": "pixels of a side", "classes": "outputs of the head", "channels": "channels of the images"}
    for option, what in numbers.items():
        parser.add_argument(f"--{option}", type=count, metavar="N", help=f"{what}; default: the network's own")
    parser.add_argument("--layers", action="store_true", help="every layer, not a line for each block")
    parser.add_argument("--netron", action="store_true", help="write the graph as ONNX and show it with Netron")
    parser.add_argument("--onnx", metavar="FILE", help="where --netron writes; default: output/onnx/NAME.onnx")


def main(arguments: argparse.Namespace) -> None:
    if arguments.onnx and not arguments.netron:
        raise UsageError("--onnx FILE is where --netron writes: give both")
    for option in ("size", "classes", "channels", "layers", "netron"):
        if arguments.name is None and getattr(arguments, option):
            raise UsageError(f"--{option} needs the NAME of a network: {command('models')} resnet18 --{option} ...")
    if arguments.name is None:
        _show_all()
        return
    if _is_file(arguments.name):
        for option in ("size", "classes", "channels", "layers", "netron"):
            if getattr(arguments, option):
                raise UsageError(
                    f"{arguments.name}: --{option} is for a network of the table, not for a weights file; "
                    f"leave it out, or write {command('models')} resnet18 --{option} ..."
                )
        program.prepare()
        _show_file(arguments.name)
        return
    from paddle_resnet.zoo import model_entry

    entry = model_entry(arguments.name)
    classes, channels = arguments.classes or entry.num_classes, arguments.channels or entry.in_channels
    chosen = arguments.name, arguments.size or entry.input_size, classes, channels
    program.prepare()
    _show_one(*chosen, layers=arguments.layers)
    if arguments.netron:
        _show_graph(*chosen, path=arguments.onnx)


def _show_all() -> None:
    """Print the table; it needs no Paddle."""
    from paddle_resnet.console import console
    from paddle_resnet.zoo import list_models, model_entry
    from paddle_resnet.zoo.shapes import costs

    table = program.table("name", "parameters", "GMACs", "layers", "input", "weights")
    table.columns[-1].justify, table.columns[-1].overflow = "left", "fold"
    table.box, table.pad_edge = None, False  # so that 80 columns are enough
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name in list_models():
        entry = model_entry(name)
        parameters, macs, depth = costs(entry)
        image = _shape((entry.in_channels, entry.input_size, entry.input_size))
        table.add_row(name, f"{parameters:,}", _gmacs(macs), str(depth), image, ", ".join(_weights(name)))
    console.print(table)


def _weights(name: str) -> Iterator[str]:
    """Yield the pretrained weights of a network as `model.pretrained` names them; "imagenet" only once."""
    from paddle_resnet.zoo import zoo_models, zoo_record
    from paddle_resnet.zoo.imagenet_weights import SOURCES

    sources = [source for source, files in SOURCES.items() if name in files]
    yield from (source.removeprefix("imagenet" if number else "") for number, source in enumerate(sources))
    if name in zoo_models():
        yield f"cifar10 {zoo_record(name).test_top1:.2%}"


def _is_file(name: str) -> bool:
    from paddle_resnet.paths import expand_home
    from paddle_resnet.zoo.registry import ALIASES, list_models

    if name in (*list_models(), *ALIASES):
        return False
    return "." in name or expand_home(name).exists() or expand_home(name.partition("#")[0]).exists()


def _show_file(name: str) -> None:
    """Print what a weights file holds, a line for each fact."""
    from paddle_resnet.models.weights.identify import identify, listed, unusual_numbers
    from paddle_resnet.models.weights.projects import SAME_NAMES
    from paddle_resnet.models.weights.weights_file import parse_source

    found = identify(parse_source(name))
    file, named, arrays = found.file, found.named, found.arrays
    learned = sum(array.size for tensor, array in arrays.items() if not tensor.endswith(("._mean", "._variance")))
    weight = arrays.get("fc.weight")
    classes = "no head" if weight is None or weight.ndim != 2 else f"{weight.shape[1]} classes"
    place = " / ".join(shown(part) for part in (file.place, named.prefix.rstrip(".")) if part)
    left_out = [*file.left_out, *named.left_out]
    known = found.models or named.project is not SAME_NAMES
    facts = {
        "format": file.format,
        "tensors": f"{len(arrays)}, with {learned:,} trainable parameters" + (f", under {place}" if place else ""),
        "numbers": unusual_numbers(arrays),
        "names": f"{named.project.name}'s ({named.project.source})" if known else "unknown",
        "fits": ", ".join(found.models) or "no network of the table",
        "note": named.project.note if known else "",
        "classes": classes + (f" (its head is called {listed(found.head)})" if found.head else ""),
        "other weights": listed(file.others),
        "left out": listed(left_out),
    }
    for fact, text in facts.items():
        if text:
            print(f"{fact + ':':<15}{text}")


def _show_one(name: str, size: int, classes: int, channels: int, *, layers: bool) -> None:
    import paddle
    from rich.text import Text

    from paddle_resnet.console import console
    from paddle_resnet.models import create_model
    from paddle_resnet.models.summary import summarize

    with paddle.LazyGuard():  # without values, which is fast
        network = create_model(name, classes, in_channels=channels)
    summary = summarize(network, (1, channels, size, size))
    table = program.table("layer", "kind", "output", "parameters", "MMACs", left=2)
    table.add_row("image", "", _shape(summary.input_shape), "", "")
    last_stage = None
    for row in summary.leaves() if layers else summary.walk():
        if row.kind == "Identity":
            continue
        stage = row.name.split(".")[0] if "." in row.name else None
        if stage != last_stage:
            table.add_section()
        last_stage = stage
        numbers = f"{row.parameters:,}" if row.parameters else "", f"{row.macs / 1e6:,.2f}" if row.macs else ""
        table.add_row(Text(row.name), row.kind, _shape(row.output_shape), *numbers)
    console.print(table)
    print(
        f"{name}: {summary.parameters:,} trainable parameters, {_gmacs(summary.macs)} GMACs an image, "
        f"{summary.depth} layers, {classes} classes"
    )


def _show_graph(name: str, size: int, classes: int, channels: int, *, path: str | None) -> None:
    from paddle_resnet.exporting.onnx import require_package, write_onnx
    from paddle_resnet.models import create_model

    netron = require_package("netron", "--netron")
    file = Path(path or f"output/onnx/{name}.onnx")
    write_onnx(create_model(name, classes, in_channels=channels), file, (1, channels, size, size))
    host, port = netron.start(str(file))
    print(f"wrote {file}, with new weights; Netron shows it at http://{host}:{port} until Ctrl-C", flush=True)
    netron.wait()


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _gmacs(macs: int) -> str:
    """Two decimals for large networks, three digits for small ones."""
    return f"{macs / 1e9:.2f}" if macs >= 1e9 else f"{macs / 1e9:.3g}"
