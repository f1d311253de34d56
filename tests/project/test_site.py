"""The documentation site: what docs/site/hooks.py adds to the pages. tools/test.sh builds it with strict links."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import paddle_resnet
from paddle_resnet.config.loading import known_keys
from paddle_resnet.config.schema import Config

pytest.importorskip("mkdocs", reason="requirements/docs.txt is not installed")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "docs/site/hooks.py"
    specification = importlib.util.spec_from_file_location("hooks", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_public_name_has_a_page(hooks: ModuleType) -> None:
    pages = hooks.api_pages()
    for name in paddle_resnet.__all__:
        assert f"::: paddle_resnet.{name}\n" in pages[f"reference/api/{name}.md"]


def test_every_config_key_has_a_meaning_in_the_table(hooks: ModuleType) -> None:
    rows = [line.split(" | ") for line in hooks.config_tables().splitlines() if line.startswith("| `")]
    meanings = {row[0].split("`")[1]: row[3].strip(" |") for row in rows}
    groups = {key.rpartition(".")[0] for key in known_keys(Config)}
    assert sorted(meanings) == sorted(key for key in known_keys(Config) if key not in groups)
    assert [key for key, meaning in meanings.items() if not meaning] == []


def test_types_and_defaults_are_those_of_the_schema(hooks: ModuleType) -> None:
    rows = hooks.config_tables().splitlines()
    assert any(
        row.startswith("| `data.image_size`{ #data.image_size } | integer from 8 to 1024 | `32` |") for row in rows
    )
    assert any(
        row.startswith("| `train.schedule`{ #train.schedule } | `cosine`, `one_cycle`, `step`, `plateau` |")
        for row in rows
    )


def test_links_of_a_page_outside_docs_are_pointed_into_the_site(hooks: ModuleType, project: Path) -> None:
    assert hooks.site_path(project / "README.md") == "index.md"
    assert hooks.site_path(project / "docs/training.md") == "training.md"
    assert hooks.site_path(project / "paddle_resnet/config/schema.py") == "source/paddle_resnet/config/schema.py.md"
