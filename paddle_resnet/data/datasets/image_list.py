"""Text lists and tables of image files with their labels: PaddleClas, PaddleX, ImageNet, CSV and TSV."""

from __future__ import annotations

import csv
import functools
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from paddle_resnet.config.schema import DataConfig
from paddle_resnet.config.value_types import SplitName
from paddle_resnet.data.datasets.found_files import (
    SPLIT_WORDS,
    FoundFiles,
    LabelledFiles,
    by_split,
    class_name,
    is_list,
    split_of,
    visible,
)
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.files import open_regular
from paddle_resnet.images.find import EXTENSIONS, has_image_suffix, is_folder
from paddle_resnet.text_files import decode_text, not_utf8

LAYOUT = "train.txt, val.txt and test.txt (or .csv) with lines 'path label', or data.train_list"
_CLASS_NAMES_FILE = re.compile(
    r"(?:.*[_-])?(?:labels?|label_list|classes|class_names|names)\.(?:txt|names)|.*\.names", re.IGNORECASE
)
_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted(EXTENSIONS, key=len, reverse=True))
_MARKS = "\t,;|"  # what separates cells, if not a space
_WITH_SUFFIX = re.compile(rf"(.*(?:{_SUFFIXES}))[\"']?([\s{_MARKS}]+)([^\s{_MARKS}].*)", re.IGNORECASE)
_WITHOUT_SUFFIX = re.compile(rf"(.*[^\s{_MARKS}])([\s{_MARKS}]+)([^\s{_MARKS}]+)")
_QUOTED = re.compile(r"([\"'])((?:(?!\1).)+)\1")
_NUMBERS = re.compile(r"[-+.,;\d]+(?:\s+[-+.,;\d]+)+")
_OF_WINDOWS = re.compile("[A-Za-z]:/")
_NUMBER_FIRST = re.compile(r"(?P<number>\d+)[\s,:;]+(?P<name>\S.*)")
_NUMBER_LAST = re.compile(r"(?P<name>.*[^\s,:;])[\s,:;]+(?P<number>\d+)")
PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "image_path", "image", "image_name", "image_id"),
    "id",  # last, as beside a column of files it only numbers the rows
)
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
MAX_CLASS_NAME = 255
PROBED = 20  # files of a list that are looked for to find the folder that its paths are relative to


def find_image_list(root: Path, config: DataConfig) -> FoundFiles:
    """Read the lists that the config names, or those in `root` that are named for a split.

    Raises:
        UsageError: no list; a line without a path and a label; a label that is no class or is out of range; a file
            with two labels; or none of the first files exists.
    """
    lists, unused = (config.lists, []) if config.lists else _lists_in(root)
    parts = {split: LabelledFiles(path, *_read_list(path)) for split, path in lists.items()}
    for split, path in lists.items():
        if parts[split].labels:
            _resolve(parts[split], root, split)
            _refuse_two_labels(parts[split])
        elif split == "train" or config.lists:
            found = shown(next(filter(str.strip, _read_lines(path))).strip())
            raise UsageError(
                f"{path}: has no labels; expected lines 'path label', or the columns path and label, found {found}"
            )
        else:
            unused.insert(0, f"{path.name} (it has no labels)")
            del parts[split]
    return with_class_names(root, parts, config.class_names, unused)


def with_class_names(
    root: Path, parts: dict[SplitName, LabelledFiles], names_file: Path | None, unused: list[str]
) -> FoundFiles:
    """Name the classes of files as `names_file` does, or a file of class names beside the training list."""
    names_file = names_file or _class_names_file([part.where for part in parts.values()])
    if names_file is None:
        return FoundFiles(root, parts, None, unused)
    classes = _read_class_names(names_file)
    name_classes(list(parts.values()), classes, names_file)
    return FoundFiles(root, parts, tuple(classes.values()), [name for name in unused if name != names_file.name])


def _lists_in(root: Path) -> tuple[dict[SplitName, Path], list[str]]:
    """Return the lists of a folder that are named for a split, and the other lists."""
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {LAYOUT}")
    candidates = [each.name for each in visible(root) if not is_folder(each) and is_list(each.name)]
    found = by_split(root, [name for name in candidates if split_of(Path(name).stem)], ", or data.train_list")
    if not found:
        raise UsageError(f"{root}: holds no list of images; expected {LAYOUT}")
    lists = {split: root / name for split, name in found.items()}
    return lists, [name for name in candidates if name not in found.values()]


def _class_names_file(lists: Sequence[Path]) -> Path | None:
    """Return the file of class names beside the training list, the first one, such as ``label.txt``.

    A list of images may be called ``train_labels.txt`` itself, with ``test_labels.txt`` beside it.
    """
    folder = lists[0] if lists[0].is_dir() else lists[0].parent
    named = [Path(each) for each in visible(folder) if _CLASS_NAMES_FILE.fullmatch(each.name)]
    found = [path for path in named if not _lists_images(_read_lines(path)) and not any(map(path.samefile, lists))]
    if len(found) > 1:
        raise UsageError(
            f"{folder}: {found[0].name} and {found[1].name} may both name the classes; say which: data.class_names"
        )
    return found[0] if found else None


def _lists_images(lines: Iterable[str]) -> bool:
    """Return whether each line, perhaps but the first, has an image's path: no file of class names."""
    lines = _stripped(lines)[1:]
    return bool(lines) and all(has_image_suffix(line) or _WITH_SUFFIX.fullmatch(line) for line in lines)


def _read_lines(path: Path) -> list[str]:
    try:
        with open_regular(path) as file:
            text = decode_text(file.read(), path, "surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _is_comment(line: str) -> bool:
    return line.rstrip() == "#" or line.startswith("# ")


def _stripped(lines: Iterable[str]) -> list[str]:
    """Return the lines that say something, without spaces around them."""
    return [line.strip() for line in lines if line.strip() and not _is_comment(line)]


def _is_text(text: str) -> bool:
    """Return whether no byte of a text was other than UTF-8, as in a list that is written in GBK."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _read_class_names(path: Path) -> dict[int, str]:
    """Return the class of each number, see `_numbered`."""
    lines = _read_lines(path)
    if _lists_images(lines):
        raise UsageError(f"{path}: lists images; expected names of classes, one a line: set data.class_names to these")
    first, *others = map(_NUMBER_FIRST.fullmatch, _stripped(lines) or [""])
    if others and not first and all(others):
        raise UsageError(f"{path}: expected a number in the first line too; remove it if it is a header")
    classes = {number: class_name(name) for number, name in _numbered(lines).items()}
    if not all(map(_is_text, classes.values())):
        raise not_utf8(path)
    if not classes or len(max(classes.values(), key=len)) > MAX_CLASS_NAME:
        raise UsageError(f"{path}: expected names of classes, one a line, of at most {MAX_CLASS_NAME} characters")
    if len(set(classes.values())) < len(classes):
        repeated, _ = Counter(classes.values()).most_common(1)[0]
        raise UsageError(f"{path}: the class {shown(repeated)} is named twice")
    return dict(sorted(classes.items()))


def _numbered(lines: Iterable[str]) -> dict[int, str]:
    """Return the class of each number: a name a line, or lines ``number name`` or ``name number`` from 0 or 1 on.

    Of lines ``number name``, those of a name that several have are names as a whole, such as ImageNet's two cranes.
    """
    lines = _stripped(lines)
    for pattern in (_NUMBER_FIRST, _NUMBER_LAST):
        found = [match for match in map(pattern.fullmatch, lines) if match and len(match["number"]) < 10]
        numbers = [int(match["number"]) for match in found]
        is_counted = sorted(numbers) in (list(range(len(lines))), list(range(1, len(lines) + 1)))
        times = Counter(match["name"] for match in found)
        if is_counted and (pattern is _NUMBER_FIRST or len(times) == len(lines)):  # else names such as "level 1"
            names = (match["name"] if times[match["name"]] == 1 else match[0] for match in found)
            return dict(zip(numbers, names, strict=True))
    return dict(enumerate(lines))


def class_list(classes: Sequence[str]) -> str:
    """Return the text of a file of class names: one a line, numbered where the names alone would be read otherwise."""
    plain = _numbered(classes) == dict(enumerate(classes))
    return "".join(f"{name}\n" if plain else f"{number} {name}\n" for number, name in enumerate(classes))


def _read_list(path: Path) -> tuple[list[str], list[str]]:
    """Return the paths and labels of a list or table, each distinct label as one string.

    Of a table without a column of labels, and a list of bare paths, the labels are empty.
    """
    names: list[str] = []
    labels: list[str] = []
    for number, line, name, label in _entries(path):
        unlike_others = bool(names) and (label is None) == bool(labels)
        if not name or label == "" or len(label or "") > MAX_CLASS_NAME or unlike_others:
            raise UsageError(
                f"{path}: line {number}: {shown(line)}: expected a path and a label, in quotes if it holds a separator"
            )
        names.append(name)
        if label is not None:
            labels.append(sys.intern(class_name(label)))
    if not names:
        raise UsageError(f"{path}: names no image; expected lines 'path label'")
    if not all(map(_is_text, set(labels))):
        raise not_utf8(path)
    return names, labels


def _entries(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield the number of a line, the line, a path, and its label, if it has one."""
    lines = _read_lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    mark = _mark_in(lines[first])
    header = [cell.strip().strip("\"'").lower() for cell in lines[first].split(mark)]
    columns = _columns(header)
    is_table = path.suffix.lower() in (".csv", ".tsv") or columns is not None
    if not is_table or any(map(has_image_suffix, header)) or not any(header):
        for number, line in enumerate(map(str.strip, lines), 1):
            match = _WITH_SUFFIX.fullmatch(line) or (
                None if has_image_suffix(line) else _WITHOUT_SUFFIX.fullmatch(line)
            )
            if _is_comment(line):
                continue
            if match:
                yield number, line, match[1].strip("\"' "), _label(match[2], match[3])
            elif line:
                yield number, line, line, None
        return
    if columns is None:
        found = shown(lines[first].strip())
        raise UsageError(f"{path}: expected a first line with the columns path (or id) and label, found {found}")
    yield from _rows(path, lines[first + 1 :], first + 1, mark, header, columns)


def _rows(
    path: Path, lines: list[str], above: int, mark: str | None, header: list[str], columns: list[int]
) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield what `_entries` does, of the rows of a table; `above` them are so many lines."""
    text = (f"{line}\n" for line in lines)
    rows = csv.reader(text, delimiter=mark or " ", skipinitialspace=mark is not None, strict=True)
    width = max(number for number, cell in enumerate(header, 1) if cell)
    unused = [column for column in range(width) if column not in columns]
    splits: dict[int, SplitName] = {}  # that an unused column named first
    try:
        for written in filter(None, rows):
            row = [cell.strip() for cell in written] + [""] * (width - len(written))
            for column in unused:
                split = SPLIT_WORDS.get(row[column].lower())
                if split and splits.setdefault(column, split) != split:
                    raise UsageError(
                        f"{path}: line {above + rows.line_num}: the column {shown(header[column])} tells splits apart, "
                        "which is not read; expected a list for each: data.train_list, data.validation_list, "
                        "data.test_list"
                    )
            cells = ["" if any(row[width:]) else row[column] for column in columns]  # a name's comma without quotes
            yield above + rows.line_num, ",".join(written), cells[0], cells[1] if len(cells) > 1 else None
    except csv.Error as error:
        raise UsageError(f"{path}: line {above + rows.line_num}: {error}") from error


def _mark_in(text: str) -> str | None:
    return next((mark for mark in _MARKS if mark in text), None)


def _label(separator: str, text: str) -> str:
    """Return the label of a line, or nothing if it has several: another column, or the numbers of a box."""
    text = text.rstrip(f"{_MARKS} ")
    if quoted := _QUOTED.fullmatch(text):
        return quoted[2].strip()
    mark = _mark_in(separator)
    return "" if (mark in text if mark else _NUMBERS.fullmatch(text)) else text.strip("\"' ")


def _columns(header: list[str]) -> list[int] | None:
    """Return the column of the paths and that of the labels, if there is one; None: it is no header."""
    path = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    if path is None:
        return None
    label = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    if label is None and len(header) == 2:
        label = 1 - path
    return [path] if label is None else [path, label]


def name_classes(parts: Sequence[LabelledFiles], classes: dict[int, str], names_file: Path | str) -> None:
    """Turn the labels of all lists into class names: they are all numbers of classes, or all names."""
    known = {class_name(name): name for name in classes.values()}
    by_number = {str(number): name for number, name in classes.items()}
    labels = {label for part in parts for label in part.labels}
    as_numbers, as_names = len(labels & by_number.keys()), len(labels & known.keys())
    numbers = as_numbers > as_names or (as_numbers == as_names and all(map(str.isdecimal, labels)))
    meaning = by_number if numbers else known
    for part in parts:
        for label in dict.fromkeys(part.labels):
            if label not in meaning:
                first = part.names[part.labels.index(label)]
                expected = f"; expected {min(classes)} to {max(classes)}" if numbers else did_you_mean(label, known)
                if numbers and label == str(len(classes)) and "0" not in labels:
                    expected += f", or lines '1 {classes[0]}' there if labels count from 1"
                raise UsageError(
                    f"{part.where}: the label {shown(label)}, of {shown(first)}, is none of the {len(classes)} classes "
                    f"of {names_file}{expected}"
                )
        part.labels = [meaning[label] for label in part.labels]


def _resolve(part: LabelledFiles, root: Path, split: SplitName) -> None:
    """Make a list's paths relative to `root`, and complete those without a suffix.

    They may be relative to `root`, to the list's own folder, to ``images``, or to a folder of `root` that is named for
    the split: whichever has most of a few files spread over the list.
    """
    names = [_normalized(name, root, part.where) for name in part.names]
    folders = ["", relative_name(part.where.parent, root), "images"]
    folders += [each.name for each in visible(root) if is_folder(each) and split_of(each.name) == split]
    probes = names[:: -(-len(names) // PROBED)]
    hits: dict[str, int] = {}
    for below in dict.fromkeys(each for each in folders if not each.startswith("..")):
        files = ((root / below / each for each in _completions(root / below, name)) for name in probes)
        hits[below] = sum(any(map(os.path.isfile, each)) for each in files)  # Path.is_file raises for a long name
    best = max(hits, key=lambda below: hits[below])
    if not hits[best]:
        if not all(map(_is_text, probes)):
            raise not_utf8(part.where)
        raise UsageError(
            f"{part.where}: {shown(probes[0], 300)}: no such file, nor any other of {len(probes)} that were looked "
            "for; paths are relative to the list's folder, to its images/, or to data.root"
        )
    folder, prefix = root / best, "" if best in ("", ".") else f"{best}/"
    part.names = [prefix + _complete(folder, name, part.where) for name in names]
    _by_stem.cache_clear()  # the folders may change before the next list is read


def _normalized(name: str, root: Path, path: Path) -> str:
    given = name
    # Written on Windows, perhaps with both separators.
    if "\\" in name and (os.name == "nt" or not os.path.lexists(root / name)):
        name = name.replace("\\", "/")
    if _OF_WINDOWS.match(name) and os.name != "nt":
        name = f"../{name}"
    if name.startswith("/") or _OF_WINDOWS.match(name):
        name = relative_name(name, os.path.abspath(root))  # noqa: PTH100 (links stay)
    if "./" in name or "//" in name:
        name = os.path.normpath(name).replace(os.sep, "/")
    if name.startswith("../"):
        name = relative_name(path.parent / name, root)
    if name.startswith("../") or name == "..":
        raise UsageError(
            f"{path}: {shown(given)}: lies outside of {root}, which the paths are relative to; set data.root to a "
            "folder that holds all images"
        )
    return name


def relative_name(path: str | Path, root: str | Path) -> str:
    """Return a path relative to `root`, with ``/`` on every system; ``..`` for one on another drive."""
    try:
        return os.path.relpath(path, root).replace(os.sep, "/")
    except ValueError:
        return ".."


def _complete(folder: Path, name: str, where: Path) -> str:
    found = _completions(folder, name)
    if len(found) > 1:
        raise UsageError(f"{where}: {shown(name)}: is {found[0]} or {found[1]}; write the suffix into the list")
    return found[0]


def _completions(folder: Path, name: str) -> list[str]:
    """Complete a name such as ``0a1b2c`` to those of files in `folder` or below, if there are any.

    Accents may be composed in the name and apart in the file's, as in those from macOS, or the reverse.
    """
    if has_image_suffix(name):
        other_forms = {unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)} - {name}
        if not other_forms or os.path.lexists(folder / name):
            return [name]
        return [next((each for each in other_forms if os.path.lexists(folder / each)), name)]
    parent, slash, last = name.rpartition("/")
    return [parent + slash + each for each in _by_stem(folder / parent).get(last, [last])]


@functools.lru_cache(64)
def _by_stem(folder: Path) -> dict[str, list[str]]:
    """Return the image files in a folder by their names without suffix."""
    found = visible(folder) if os.path.isdir(folder) else []  # noqa: PTH112 (Path's raises where a name is too long)
    files: dict[str, list[str]] = {}
    for name in sorted(each.name for each in found if has_image_suffix(each.name)):
        files.setdefault(Path(name).stem, []).append(name)
    return files


def _refuse_two_labels(part: LabelledFiles) -> None:
    """Leave out what a list names again, and refuse a file that it names with two labels."""
    if len(set(part.names)) == len(part.names):
        return
    first: dict[str, str] = {}
    for name, label in zip(part.names, part.labels, strict=True):
        if first.setdefault(name, label) != label:
            raise UsageError(
                f"{part.where}: {shown(name)} is named twice, as {shown(first[name])} and as {shown(label)}; one must "
                "be wrong"
            )
    part.repeated = len(part.names) - len(first)
    part.names, part.labels = list(first), list(first.values())
