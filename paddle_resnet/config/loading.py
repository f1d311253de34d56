"""Turn YAML values and ``a.b=value`` overrides into a checked config, and its errors into one line each."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from paddle_resnet.config.yaml_reader import IsText, NotPlainYamlError, parse_yaml, plain_scalar, read_yaml
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.project_files import config_path

Schema = TypeVar("Schema", bound=BaseModel)

SHORT_NAMES = {"lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "wd": "weight_decay"}
SHORT_NAMES |= {"imgsz": "image_size", "horizontal_flip": "flip", "hflip": "flip"}  # other projects' names of keys

PLAIN_MESSAGES = {  # messages that are clearer than pydantic's own, by pydantic's type of error
    "missing": "expected more values",
    "model_type": "expected a group of keys",
    "path_type": "expected a path",
    "tuple_type": "expected a list in brackets, as [0.5, 1.0] or [a, b]",
}


def load_config(schema: type[Schema], path: str | Path, overrides: Iterable[str]) -> Schema:
    """Read a YAML file and check it as `check_config` does; a missing or malformed file is a UsageError too."""
    path = config_path(path)
    remedy = "a config has lines as 'train:' and '  epochs: 10'; see configs/"
    values = read_yaml(path, partial(_is_text, schema), remedy)
    return check_config(schema, values, overrides, str(path))


def check_config(schema: type[Schema], values: Mapping[str, Any], overrides: Iterable[str], source: str) -> Schema:
    """Check nested values, with ``a.b=value`` overrides applied; messages call the values `source`.

    An unknown key, a wrong type or value is a UsageError that names it.
    """
    nested = copy.deepcopy(dict(values))
    origin = dict.fromkeys(nested, source)
    for override in overrides:
        key = _apply_override(nested, override, partial(_is_text, schema))
        for earlier in [each for each in origin if f"{each}.".startswith(f"{key}.")]:
            if origin.pop(earlier) not in (source, f"-o {override}"):
                logger.warning(f"-o {shown(override)} replaces an earlier -o {shown(earlier)}=...")
        origin[key] = f"-o {override}"
    try:
        return schema.model_validate(nested)
    except ValidationError as error:
        raise UsageError(_explain(error, schema, origin, source)) from None


def _apply_override(values: dict[str, Any], override: str, is_text: IsText) -> str:
    """Set one ``a.b=value`` in nested `values`; return the dotted key."""
    key, equals, text = str(override).partition("=")
    *groups, last = key.split(".")
    if not equals or not all((*groups, last)):
        raise UsageError(f"-o {shown(override)}: expected key=value, for example -o train.epochs=3")
    if not override.isascii() and override.encode(errors="ignore").decode() != override:
        raise UsageError(f"-o {shown(override)}: is not UTF-8 text, which a run's config.yaml is written in")
    value: Any = text
    if is_text(key) and not text.lstrip().startswith(("[", "'", '"')):
        value = plain_scalar(text.strip(), as_text=True)  # in YAML, "photos #2" is a text and a comment
    else:
        with contextlib.suppress(NotPlainYamlError):
            value = parse_yaml(text, is_text, key)
    for group in groups:
        inner = values.setdefault(group, {})
        if inner is None:
            inner = values[group] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"-o {shown(override)}: {group} is a single value, not a group of keys")
        values = inner
    if isinstance(value, dict) and isinstance(values.get(last), dict):
        left_out = ", ".join(sorted(values[last].keys() - value.keys()))
        if left_out:
            logger.warning(f"-o {shown(override)} replaces all of {key}; left out, so at their defaults: {left_out}")
    values[last] = value
    return key


def _is_text(schema: type[BaseModel], key: str) -> bool:
    """Return whether a key takes a name or a path, whose value stays as typed: 2024_01 is no number there."""
    annotation: Any = schema
    for part in key.split("."):
        fields = annotation.model_fields if _is_group(annotation) else {}
        if part not in fields:
            return False
        annotation = fields[part].annotation
    return _takes_text(annotation)


def _takes_text(annotation: Any) -> bool:
    return annotation in (str, Path) or any(_takes_text(part) for part in get_args(annotation))


def _is_group(annotation: Any) -> bool:
    # Python 3.10 takes `tuple[int, ...]` for a type.
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _explain(error: ValidationError, schema: type[BaseModel], origin: Mapping[str, str], source: str) -> str:
    """Turn pydantic's first error into one line that names key, value and expectation."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    key = key.removesuffix(".function-after") or "config"
    # Where the key, the nearest group around it or else a key in it was set.
    parts = key.split(".")
    around = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    within = [each for each in origin if each.startswith(f"{key}.")]
    source = shown(next((origin[each] for each in (*around, *within) if each in origin), source), 240)
    if first["type"] == "extra_forbidden":
        return f'{source}: unknown key "{shown(key)}"{_suggest_key(key, schema)}'
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{source}: {key}: {shown(message, 300)}"
    message = PLAIN_MESSAGES.get(first["type"], message)
    found = "no value; write one, or leave the key out" if first["input"] is None else shown(repr(first["input"]))
    return f"{source}: {key}: {message}, got {found}"


def known_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key of the schema, groups included."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        if _is_group(field.annotation):
            keys += known_keys(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
    return keys


def _suggest_key(key: str, schema: type[BaseModel]) -> str:
    """Suggest the nearest known key, or one of the same last name in another group."""
    known = known_keys(schema)
    if key in known:
        group, _, inner = key.partition(".")
        return f' (a dot divides keys in -o only; here "{inner}" stands indented below "{group}:")'
    last = key.rsplit(".", 1)[-1]
    last = SHORT_NAMES.get(last, last)
    elsewhere = [name for name in known if name.rsplit(".", 1)[-1] == last]
    return f' (did you mean "{elsewhere[0]}"?)' if elsewhere else did_you_mean(key, known)
