"""The import contract of docs/architecture.md, read from the source: nothing is imported to check it."""

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "paddle_resnet"

# Each layer, from the bottom up. A layer is a file or a folder of the package. It may import those below it, of which
# the ones without layers of their own are listed.
ROOT = {
    "errors": set(),
    "paddle_compat": set(),
    "system": {"paddle_compat"},
    "console": {"errors"},
    "paths": {"errors", "system"},
    "files": {"errors", "paths", "system"},
    "text_files": {"errors", "files"},
    "safe_pickle": {"errors"},
    "download": {"errors", "files"},
    "distributed": {"errors"},
    "signals": {"errors", "distributed"},
    "worker_pool": {"errors", "signals"},
    "results": set(),
    "timing": set(),
    "project_files": {"errors", "paths"},
    "runtime": {"errors", "console", "paddle_compat", "system", "distributed", "signals"},
    "environment": {"system", "distributed", "runtime"},
}
LAYERS = {
    "config": set(),
    "images": set(),
    "data": {"config", "images"},
    "zoo": {"config"},
    "models": {"config", "zoo"},
    "onednn": {"zoo", "models"},
    "doctor": {"zoo", "models", "onednn"},
    "plots": set(),
    "tracking": {"config"},
    "training": {"config", "data", "images", "zoo", "models", "onednn", "plots", "tracking"},
    "evaluation": {"config", "data", "images", "zoo", "models", "onednn", "plots", "tracking", "training"},
    "inference": {"config", "images", "onednn"},
    "exporting": {"config", "data", "images", "zoo", "models", "onednn", "tracking"}
    | {"training", "evaluation", "inference"},
}
ALL = {*LAYERS}
LAYERS |= {"service": ALL, "on_ray": {"images", "inference", "service"}, "benchmark": ALL, "lessons": ALL}
LAYERS |= {"cli": {*LAYERS}, "__main__": {"cli"}}
MAY_IMPORT = {**ROOT, **{name: {*ROOT} | allowed for name, allowed in LAYERS.items()}}
# The package itself: it prepares the process, and imports its public names when they are asked for.
MAY_IMPORT["__init__"] = {"runtime", *LAYERS} - {"cli", "__main__"}

# What only commands may do: parse arguments, print, exit.
FORBIDDEN_MODULES = {"argparse", "optparse", "getopt", "click", "fire", "tools"}
FORBIDDEN_NAMES = {"print", "exit", "quit", "SystemExit"}
FORBIDDEN_ATTRIBUTES = {("sys", "exit"), ("os", "_exit"), ("sys", "argv")}


def python_files(folder):
    return sorted(path for path in (PROJECT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path):
    """``paddle_resnet/models/blocks.py`` is ``paddle_resnet.models.blocks``; a package is its folder's name."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path.read_text(encoding="utf-8") for path in python_files(PACKAGE)}


@functools.cache
def nodes(source):
    """All nodes of a module's syntax tree."""
    return [*ast.walk(ast.parse(source))]


def imports(module, source, modules):
    """Modules that `source` imports anywhere: at its top, inside functions, and for type checking."""
    is_package = any(name.startswith(module + ".") for name in modules)
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
                base = ".".join([*up, base]) if base else ".".join(up)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in modules or alias.name == "__version__" else base)
    return found


def layer(module):
    """The part of the package that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def misplaced_imports(module, source, modules):
    """Imports that the table does not allow, each as one line."""
    allowed = MAY_IMPORT[layer(module)] | {"__version__"}  # the version is there before any layer is
    return [
        f"{module} imports {name}: {layer(module)} may not import {layer(name)}"
        for name in sorted(imports(module, source, modules))
        if name.split(".")[0] == PACKAGE and layer(name) != layer(module) and layer(name) not in allowed
    ]


def forbidden_uses(module, source):
    """Uses of what only commands may use, each as one line."""
    found = []
    for node in nodes(source):
        names = set()
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {node.module.split(".")[0]} & FORBIDDEN_MODULES
            names |= {alias.name for alias in node.names if (node.module, alias.name) in FORBIDDEN_ATTRIBUTES}
        elif isinstance(node, ast.Name):
            names = {node.id} & FORBIDDEN_NAMES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {node.attr} if (node.value.id, node.attr) in FORBIDDEN_ATTRIBUTES else set()
        found += [f"{module}, line {node.lineno}: {name}" for name in sorted(names)]
    return found


def cycle(modules):
    """A cycle among the modules' imports, or an empty list."""
    graph = {name: (imports(name, source, modules) & set(modules)) - {name} for name, source in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_layer_is_in_the_table():
    assert {layer(module) for module in MODULES} <= set(MAY_IMPORT)


def test_the_table_goes_from_the_bottom_up():
    below = set()
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= below, f"{name} may import what stands above it"
        below.add(name)


def test_modules_import_only_from_layers_below():
    assert [line for name, source in MODULES.items() for line in misplaced_imports(name, source, MODULES)] == []


def test_commands_alone_parse_arguments_print_or_exit():
    others = {name: source for name, source in MODULES.items() if layer(name) not in ("cli", "__main__")}
    assert [line for name, source in others.items() for line in forbidden_uses(name, source)] == []


def private_attributes(source):
    """Private attributes that a module takes of other objects than `self`."""
    return {
        node.attr
        for node in nodes(source)
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and ast.unparse(node.value) != "self"
    }


PADDLE_COMPAT = f"{PACKAGE}.paddle_compat"
STATE_DICT_NAMES = {"_mean", "_variance"}
PADDLE_PRIVATE = private_attributes(MODULES[PADDLE_COMPAT]) - STATE_DICT_NAMES


def test_paddle_compat_alone_uses_private_attributes_of_paddle():
    others = {name: source for name, source in MODULES.items() if name != PADDLE_COMPAT}
    used = {name: private_attributes(source) & PADDLE_PRIVATE for name, source in others.items()}
    assert {name: attributes for name, attributes in used.items() if attributes} == {}
    imported = {name: imports(name, source, {}) for name, source in others.items()}
    assert [name for name, found in imported.items() if any(each.startswith("paddle.base") for each in found)] == []


def test_there_is_no_import_cycle():
    assert cycle(MODULES) == []


@pytest.mark.parametrize("path", python_files("tools"), ids=lambda path: path.name)
def test_a_script_of_tools_starts_a_command(path):
    """It starts a command of the package and does nothing itself. What makes the environment needs Python alone."""
    used = imports(f"tools.{path.stem}", path.read_text(encoding="utf-8"), {})
    if path.stem == "setup_environment":
        assert used <= {*sys.stdlib_module_names}
    elif path.stem == "from_checkout":
        assert used - {*sys.stdlib_module_names, "__future__"} == {"paddle_resnet.cli"}
    else:
        assert used - {"setup_environment", "sys"} == {"from_checkout"}


def test_importing_the_package_does_not_import_paddle():
    code = "import sys, paddle_resnet; sys.exit('paddle' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


# The checks themselves, on made-up modules.

EXAMPLE = {
    "paddle_resnet": "",
    "paddle_resnet.errors": "",
    "paddle_resnet.data": "",
    "paddle_resnet.data.loader": "",
    "paddle_resnet.models": "",
    "paddle_resnet.models.blocks": "",
    "paddle_resnet.training": "",
}


@pytest.mark.parametrize(
    ("module", "source", "layer_named"),
    [
        ("paddle_resnet.models.blocks", "import paddle_resnet.data.loader", "data"),
        ("paddle_resnet.models.blocks", "from paddle_resnet import data", "data"),
        ("paddle_resnet.models.blocks", "def f():\n    from paddle_resnet.training import train", "training"),
        ("paddle_resnet.models.blocks", "if TYPE_CHECKING:\n    from paddle_resnet.training import train", "training"),
        ("paddle_resnet.models.blocks", "from ..data import loader", "data"),
        ("paddle_resnet.models", "from ..data.loader import x", "data"),
        ("paddle_resnet.models.blocks", "from .. import data", "data"),
        ("paddle_resnet.errors", "from . import data", "data"),
        ("paddle_resnet.models.blocks", "from paddle_resnet import create_model", "__init__"),
    ],
)
def test_a_misplaced_import_is_found(module, source, layer_named):
    [complaint] = misplaced_imports(module, source, EXAMPLE)
    assert complaint.endswith(f"may not import {layer_named}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("paddle_resnet.models.blocks", "from paddle_resnet.errors import UsageError"),
        ("paddle_resnet.models", "from .blocks import x\nfrom ..errors import UsageError"),
        ("paddle_resnet.training", "from paddle_resnet import __version__, data"),
        ("paddle_resnet.training", "import paddle, numpy"),
    ],
)
def test_a_right_import_passes(module, source):
    assert misplaced_imports(module, source, EXAMPLE) == []


@pytest.mark.parametrize(
    "source",
    [
        "import argparse",
        "from argparse import ArgumentParser",
        "print(1)",
        "import sys\nsys.exit(1)",
        "from sys import exit as leave",
        "raise SystemExit(2)",
    ],
)
def test_what_only_commands_may_do_is_found(source):
    assert len(forbidden_uses("paddle_resnet.models", source)) == 1


def test_a_cycle_is_found():
    assert cycle({"a": "import b", "b": "def f():\n    import c", "c": "from a import x"})
    assert not cycle({"a": "import b\nimport c", "b": "import c", "c": ""})
