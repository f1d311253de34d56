"""MkDocs hooks: pages from outside of docs/, the API's and the config's reference, and the theme in two languages."""

from __future__ import annotations

import ast
import json
import os
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
PAGE_NAMED = re.compile(r"docs/(\w+)\.md(#[\w-]+)?")
HOMES = ("index.md", "zh/README.md")
SEARCH_BOOST = {"How-to guides": 3, "使用指南": 3, "Explanation": 0.5}
SEARCH_WORDS = {
    "tutorial.md": ["notebook", "Jupyter"],
    "zh/tutorial.md": ["notebook", "Jupyter", "笔记本"],
    "training.md": ["continue", "restart", "interrupted"],
    "finetuning.md": ["finetune", "finetuning", "transfer learning", "custom dataset"],
    "weights.md": ["PyTorch", "checkpoint", "state dict", "pretrained"],
    "deployment.md": ["quantize", "quantization", "inference"],
    "serving.md": ["server", "deploy", "REST"],
    "zh/training.md": ["恢复训练", "恢复", "继续训练", "继续"],
    "zh/finetuning.md": ["迁移学习", "自定义数据集"],
    "zh/serving.md": ["部署", "接口"],
    "zh/weights.md": ["转换权重", "模型转换"],
}
"""What readers call the subject of a page where the page does not."""
NOTEBOOKS = {"examples/tutorial.ipynb": "tutorial.md", "examples/tutorial_zh.ipynb": "zh/tutorial.md"}
LESSONS = "paddle_resnet/lessons/catalogue.yaml"
BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}


# --- pages that are not in docs/


def site_path(target: Path) -> str:
    """Return the path in the site, relative to docs/, of a page, an image or a source file of the project."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if target.parent == PROJECT and target.suffix == ".md":
        return "index.md" if target.name == "README.md" else target.name
    source = target.relative_to(PROJECT).as_posix()
    return NOTEBOOKS.get(source, f"source/{source}.md")


@cache
def outside_files() -> dict[str, Path]:
    """Return path in the site -> file outside of docs/: the project's own pages, and what pages link to."""
    own = {*PROJECT.glob("*.md"), *(PROJECT / notebook for notebook in NOTEBOOKS)}
    pages = own | set(DOCS.rglob("*.md"))
    linked = {(page.parent / link[1]).resolve() for page in pages for link in LINK.findall(page.read_text("utf-8"))}
    return {site_path(path): path for path in own | linked if path.is_file() and not path.is_relative_to(DOCS)}


def as_page(path: Path) -> str:
    """Return a file's text as Markdown: pages as they are, sources as one code block that the search leaves out."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return "\n\n".join(part for cell in json.loads(text)["cells"] for part in cell_parts(cell))
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path.name}\n\n````{path.suffix[1:]}\n{text}\n````\n"


def cell_parts(cell: dict[str, Any]) -> list[str]:
    """Return a notebook's cell as Markdown: prose, or code with its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        shown = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
        if "image/png" in shown:
            parts.append(f"![figure](data:image/png;base64,{shown['image/png'].strip()})")
        elif "text/html" in shown:
            parts.append(shown["text/html"])
        else:
            text = "".join(output.get("text", "")) or shown.get("text/plain", "")
            parts.append(f"```text\n{text.rstrip()}\n```")
    return parts


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put what the package names into the navigation: its lessons, in their order, and its public names."""
    outside_files.cache_clear()  # `mkdocs serve` builds the site again in the same process
    lessons = [f"lessons/{name}.md" for name in yaml.safe_load((PROJECT / LESSONS).read_text("utf-8"))]
    more = {"lessons/README.md": lessons, "zh/lessons/README.md": [f"zh/{page}" for page in lessons]}
    more["reference/api.md"] = [{Path(page).stem: page} for page in api_pages()]

    def filled(items: list[Any]) -> None:
        for item in items:
            if isinstance(item, dict):
                (children,) = item.values()
                if isinstance(children, list):
                    filled(children)
                    children += [page for name in children if isinstance(name, str) for page in more.get(name, [])]

    filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and one page for each public name of the package."""
    for place, text in {**{place: as_page(path) for place, path in outside_files().items()}, **api_pages()}.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where the site has their targets; put the config's tables in their place."""
    path = page.file.src_uri
    section = page.parent.title if page.parent else None
    page.meta.setdefault("search", {"boost": SEARCH_BOOST.get(section, 1)})
    page.meta.setdefault("tags", SEARCH_WORDS.get(path, []))
    if path in HOMES:
        page.meta["hide"] = ["navigation"]
    here = outside_files().get(path, DOCS / path).parent

    def moved(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if not target.exists():
            return match[0]
        return f"{match[1]}{os.path.relpath(site_path(target), Path(path).parent)}{match[3]}"

    tables = {
        "<!-- config tables -->": config_tables,
        "<!-- public names -->": public_pages,
        "<!-- commands -->": commands,
    }
    markdown = LINK.sub(moved, markdown)
    for mark, table in tables.items():
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


# --- the reference


def public_names() -> list[str]:
    """Return the names of ``paddle_resnet.__all__``, without importing the package."""
    for node in ast.parse((PROJECT / "paddle_resnet/__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value), key=str.lower)
    raise ValueError("paddle_resnet/__init__.py: expected a list __all__")


def api_pages() -> dict[str, str]:
    """Return path in the site -> Markdown of the page of each public name."""
    options = "\n    options:\n      heading_level: 1\n      show_root_heading: true\n"
    return {f"reference/api/{name}.md": f"::: paddle_resnet.{name}{options}" for name in public_names()}


def public_pages() -> str:
    """Return a list with a link to the page of each public name."""
    return "\n".join(f"- [{name}](api/{name}.md)" for name in public_names())


def commands() -> str:
    """Return the description of each command, its module's docstring."""
    from paddle_resnet.cli import COMMANDS

    parts = []
    for name in COMMANDS:
        source = (PROJECT / f"paddle_resnet/cli/{name.replace('-', '_')}.py").read_text("utf-8")
        parts.append(
            f"## paddle-resnet {name}\n\n{COMMANDS[name]}\n\n```text\n{ast.get_docstring(ast.parse(source))}\n```"
        )
    return "\n\n".join(parts)


def comments_of_fields(source: str) -> dict[str, dict[str, str]]:
    """Return class -> field -> the comment behind the field or right above it."""
    lines = source.splitlines()
    comments: dict[str, dict[str, str]] = {}
    for group in ast.parse(source).body:
        for node in group.body if isinstance(group, ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign):
                first = last = node.lineno - 1
                while lines[first - 1].strip().startswith("#"):
                    first -= 1
                above = " ".join(line.strip(" #") for line in lines[first:last])
                comment = lines[last].partition("  # ")[2] or above
                comments.setdefault(group.name, {})[ast.unparse(node.target)] = comment
    return comments


def shown_type(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type for readers, such as ``integer from 8 to 1024, or null``."""
    if "anyOf" in schema:
        return ", or ".join(map(shown_type, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} numbers"
    kind = "path" if schema.get("format") == "path" else schema.get("type", "text or integer")
    return " ".join([kind, *(f"{word} {schema[key]:g}" for key, word in BOUNDS.items() if key in schema)])


def config_tables() -> str:
    """Return every key of ``config/schema.py`` with its type, default and meaning: a heading and a table per group."""
    from paddle_resnet.config import schema

    comments = comments_of_fields(Path(schema.__file__).read_text("utf-8"))
    groups = {name: type(value) for name, value in schema.Config() if isinstance(value, schema.Group)}
    lines = []
    for prefix, group in {"": schema.Config, **groups}.items():
        lines += [
            f"## {prefix or 'The run'}",
            "",
            group.__doc__ or "",
            "",
            "| key | type | default | meaning |",
            "|---|---|---|---|",
        ]
        defaults = group().model_dump(mode="json")
        for name, field in group.model_json_schema()["properties"].items():
            if prefix or name not in groups:
                key = f"{prefix}.{name}".strip(".")
                meaning = PAGE_NAMED.sub(r"[\1](../\1.md\2)", comments[group.__name__][name])
                default = yaml.safe_dump(defaults[name], default_flow_style=True).splitlines()[0]
                lines.append(f"| `{key}`{{ #{key} }} | {shown_type(field)} | `{default}` | {meaning} |")
        lines.append("")
    return "\n".join(lines)


# --- two languages


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation) -> dict[str, Any]:
    """Show the theme and the navigation in the page's language, with a link to the page in the other one."""
    path = page.file.src_uri
    chinese = path.startswith("zh/")
    places = {each.file.src_uri: each.url for each in nav.pages}
    english = "index.md" if path == "zh/README.md" else path.removeprefix("zh/")
    translated = "zh/README.md" if path == "index.md" else f"zh/{english}"
    config.theme["language"] = "zh" if chinese else "en"
    config.extra["homepage"] = "zh/" if chinese else "."
    config.extra["alternate"] = [
        {"name": "English", "lang": "en", "link": places.get(english, ".")},
        {"name": "中文", "lang": "zh", "link": places.get(translated, "zh/")},
    ]
    sections = {item.title: item for item in nav.items}
    items = sections.pop("中文").children if chinese else [item for item in nav.items if item.title != "中文"]
    context["nav"] = SimpleNamespace(items=items, homepage=nav.homepage, pages=nav.pages)
    for way in ("previous_page", "next_page"):
        neighbour = getattr(page, way)
        if neighbour and neighbour.file.src_uri.startswith("zh/") != chinese:
            setattr(page, way, None)
    return context
