"""The documents: links lead somewhere; commands, configs and files exist; both languages have the same content."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddle_resnet.cli import COMMANDS
from paddle_resnet.config.loading import known_keys
from paddle_resnet.config.schema import Config

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [*PROJECT.glob("*.md"), PROJECT / "examples/README.md", *(PROJECT / "docs").rglob("*.md")]
TRANSLATED = sorted(page for page in (PROJECT / "docs/zh").glob("*.md") if (PROJECT / "docs" / page.name).exists())
READMES = [PROJECT / "README.md", PROJECT / "docs/zh/README.md"]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page):
    return page.read_text(encoding="utf-8")


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(PROJECT)))


def anchors(page):
    """GitHub's anchors of a page's headings, without the numbers that it gives to repeated ones."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each(PAGES)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(page))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert broken == []


@each(PAGES)
def test_commands_scripts_and_configs_exist(page):
    text = read(page)
    assert {*re.findall(r"\bpaddle-resnet ([a-z][a-z-]*)", text)} <= {*COMMANDS}
    paths = re.findall(r"\b(?:tools|tests/soak|docs/experiments)/[a-z]\w*\.(?:py|sh)|\bconfigs/\w+\.yaml", text)
    paths += [f"configs/{name}.yaml" for name in re.findall(r" -c (\w+)(?=[ `\n])", text)]
    assert [path for path in paths if not (PROJECT / path).is_file()] == []


@each(PAGES)
def test_config_keys_of_commands_exist(page):
    placeholder = {"key"}
    assert {*re.findall(r"-o [\"']?([a-z_.]+)=", read(page))} <= {*known_keys(Config)} | placeholder


@each(PAGES)
def test_source_files_that_are_named_exist(page):
    named = re.findall(r"`((?:[a-z]\w*/)+[a-z_]\w*\.(?:py|sh|txt))`", read(page))
    places = (PROJECT, PROJECT / "paddle_resnet")
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


def test_the_architecture_names_every_part_of_the_package():
    package = [path for path in (PROJECT / "paddle_resnet").iterdir() if path.name.strip("_") == path.name]
    parts = {path.stem for path in package if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {part for part in parts if not re.search(rf"`{part}[`/]", read(PROJECT / "docs/architecture.md"))} == set()


@each([PROJECT / "docs/architecture.md", PROJECT / "CONTRIBUTING.md"])
def test_names_in_code_font_are_those_of_the_source(page):
    files = [path for folder in ("paddle_resnet", "tests", "tools") for path in (PROJECT / folder).rglob("*.[ps][yh]")]
    words = set(re.findall(r"\w+", " ".join([*map(read, files), *map(str, files), read(PROJECT / "pyproject.toml")])))
    code = re.findall(r"`([^`\n]+)`", FENCE.sub("", read(page)))
    unknown = {word for each in code for word in re.findall(r"[a-zA-Z_]\w{3,}", each) if word not in words}
    sources = {path.stem: read(path) for path in (PROJECT / "paddle_resnet").glob("*.py")}
    for path in (PROJECT / "paddle_resnet").rglob("*.py"):
        sources |= dict.fromkeys(re.findall(r"^class (\w+)", read(path), re.MULTILINE), read(path))
    for owner, name in re.findall(r"\b(\w+)\.(\w+)", " ".join(code)):
        if owner in sources and name != "py" and not re.search(rf"\b{name}\b", sources[owner]):
            unknown.add(f"{owner}.{name}")
    assert unknown == set()


@each([*READMES, PROJECT / "CONTRIBUTING.md"])
def test_code_blocks_are_fenced_with_their_language(page):
    assert {language for language, _ in FENCE.findall(read(page))} <= {"bash", "python", "text"}
    assert re.findall(r"\n\n {4}\S.*", FENCE.sub("", read(page))) == []


@each(READMES)
def test_a_readme_has_at_most_190_lines(page):
    assert len(read(page).splitlines()) <= 190


def test_both_readmes_have_the_same_code_links_and_sections():
    def outline(page):
        text = read(page)
        links = {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", text)} - {*READMES}
        code = [re.sub("#.*", "", block).split() for language, block in FENCE.findall(text) if language != "text"]
        names = sorted(path.name.replace("_zh.ipynb", ".ipynb") for path in links)
        return code, names, len(re.findall("^##", text, re.MULTILINE))

    assert outline(READMES[0]) == outline(READMES[1])


def outline(page):
    """What both languages of a page share: levels of headings, code without comments, images, numbers in tables."""
    text = read(page)
    prose = FENCE.sub("", text)
    indented = re.findall(r"(?:^(?: {4}.*)?\n)*^ {4}.*$", prose, re.MULTILINE)
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    return {
        "heading": re.findall(r"^#+(?= )", prose, re.MULTILINE),
        "code block": [
            re.sub("#.*|//.*", "", block).split() for block in [code for _, code in FENCE.findall(text)] + indented
        ],
        "image": [(page.parent / image).resolve() for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", prose)],
        "row of a table": [(row.count(" |"), sorted(re.findall(r"\d(?:[\d.,]*\d)?", row))) for row in rows],
    }


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translated_page_has_the_structure_of_the_english_one(page):
    english, chinese = outline(PROJECT / "docs" / page.name), outline(page)
    for kind, expected in english.items():
        found = chinese[kind]
        assert len(found) == len(expected), (
            f"docs/zh/{page.name}: expected {len(expected)} of {kind}, found {len(found)}"
        )
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
            assert ours == theirs, f"docs/zh/{page.name}: {kind} {number} is {ours}, in docs/{page.name} it is {theirs}"


MEASURED = re.compile(
    r"images/s|top-1|\bms\b|accuracy|loss|error \(|p50|memory|张/秒|每秒图像数|毫秒|准确率|错误率|损失|内存",
    re.IGNORECASE,
)
SHOWS_N = re.compile(r"\b(n = \d|single run|median|round|seed)|±|单次运行|中位数|种子", re.IGNORECASE)


def unexplained_tables(text):
    """Headers of measured tables, if neither their section nor a sentence on the whole page says how many runs."""
    prose = FENCE.sub("", text)
    page_wide = [sentence for sentence in re.split(r"\.\s|。", prose) if re.search("this page|本页", sentence)]
    for section in re.split(r"^#+ ", prose, flags=re.MULTILINE):
        headers = [table.splitlines()[0] for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)]
        if not any(map(SHOWS_N.search, [section, *page_wide])):
            yield from filter(MEASURED.search, headers)


@each([page for page in PAGES if PROJECT / "docs/reference" not in page.parents])
def test_every_measured_table_says_how_often(page):
    advice = "say beside the table: n = ..., with the standard deviation or the range; or single run (单次运行)"
    assert list(unexplained_tables(read(page))) == [], advice


def test_a_measured_table_without_n_is_found():
    table = "| network | images/s |\n|---|---|\n| resnet20 | 680 |\n"
    assert list(unexplained_tables(f"Medians.\n## Speed\n\n{table}\n")) == ["| network | images/s |"]
    assert list(unexplained_tables(f"## Speed\n\nA single run.\n\n{table}\n")) == []
    assert list(unexplained_tables(f"Each number of this page is of a single run.\n\n## Speed\n\n{table}\n")) == []
