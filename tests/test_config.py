"""The schema of a run: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddle_resnet.config import Config, known_keys
from paddle_resnet.errors import UsageError

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: mine\ndata:\n  source: digits\ntrain:\n  epochs: 7\n")
    return path


def refused(path, *overrides) -> str:
    with pytest.raises(UsageError) as caught:
        Config.load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_file_and_overrides_are_typed(config_file):
    config = Config.load(
        config_file, ["train.epochs=3", "data.image_size=64", "train.learning_rate=1e-3", "augment.flip=true"]
    )
    assert (config.train.epochs, config.data.image_size, config.train.learning_rate) == (3, 64, 0.001)
    assert config.augment.flip is True
    assert config.name == "mine"


def test_override_can_set_null_and_lists(config_file):
    config = Config.load(config_file, ["model.pretrained=null", "augment.scale=[0.5, 1]", "data.root=somewhere"])
    assert config.model.pretrained is None
    assert config.augment.scale == (0.5, 1.0)
    assert config.data.root == Path("somewhere")


def test_names_may_look_like_numbers(config_file):
    config = Config.load(config_file, ["name=2024", "data.root=7", "output=1.5"])
    assert (config.name, config.data.root, config.output) == ("2024", Path("7"), Path("1.5"))


def test_later_override_wins(config_file):
    assert Config.load(config_file, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_resolved_config_reproduces_itself(config_file, tmp_path):
    config = Config.load(config_file, ["augment.scale=[0.5, 1]", "data.root=a b", "train.clip_norm=1"])
    config.save(tmp_path / "saved.yaml")
    assert Config.load(tmp_path / "saved.yaml") == config


def test_resolved_config_names_every_key(config_file):
    import yaml

    resolved = yaml.safe_load(Config.load(config_file).to_yaml())
    for key in known_keys():
        value = resolved
        for part in key.split("."):
            value = value[part]


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    assert Config.load(path).name == path.stem


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epohs=3", ["unknown key", "train.epohs", 'did you mean "train.epochs"']),
        ("epochs=3", ["unknown key", 'did you mean "train.epochs"']),
        ("train.epochs=many", ["train.epochs", "integer", "'many'"]),
        ("train.epochs=0", ["train.epochs", "greater than 0"]),
        ("train.epochs=true", ["train.epochs", "integer", "True"]),
        ("train.epochs=2.5", ["train.epochs", "2.5"]),
        ("train.learning_rate=.nan", ["train.learning_rate", "finite"]),
        ("data.source=imagenet", ["data.source", "digits", "cifar10", "'imagenet'"]),
        ("data.image_size=2", ["data.image_size", "8"]),
        ("data.resize=8", ["resize (8)", "image_size (32)"]),
        ("data.source=image_folder", ["image_folder", "root"]),
        ("train.warmup=1", ["train.warmup", "less than 1"]),
        ("augment.scale=[0.9, 0.1]", ["augment.scale", "smallest"]),
        ("augment={pad: 4, scale: [0.5, 1]}", ["augment", "pad (4)", "set one"]),
        ("device=tpu", ["device", "gpu:<number>", "'tpu'"]),
        ("name=../elsewhere", ["name", "../elsewhere", "letters"]),
        ("model=resnet18", ["model", "group of keys", "'resnet18'"]),
        ("augment.scale=[1]", ["augment.scale", "more values"]),
        ("augment.scale=0.5", ["augment.scale", "list"]),
        ("train=3", ["train"]),
        ("name.first=x", ["name.first=x", "not a group"]),
        ("train.epochs", ["-o train.epochs", "key=value"]),
        ("=3", ["key=value"]),
    ],
)
def test_wrong_override_is_one_line(config_file, override, words):
    message = refused(config_file, override)
    for word in words:
        assert word in message


def test_wrong_key_in_the_file_names_the_file(config_file):
    config_file.write_text("trane:\n  epochs: 3\n")
    message = refused(config_file)
    assert str(config_file) in message and '"train"' in message


def test_missing_file(tmp_path):
    assert "nowhere.yaml" in refused(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["train: [1, 2", "- a\n- b\n", "just words", "name: 2026-13-45\n", "[" * 3000])
def test_malformed_file(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "bad.yaml" in refused(path)


def test_binary_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01\x80")
    assert "bad.yaml" in refused(path)


def test_config_is_frozen(config_file):
    with pytest.raises(Exception, match="frozen"):
        Config.load(config_file).train.epochs = 9


def test_every_key_has_its_words_in_the_documentation():
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    words = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [key for key in known_keys() if f"`{key}" not in words and f" {key}=" not in words] == []


@pytest.mark.parametrize("text", ["1_2", "0x10", "12e3", "2024-05-01", "2024-02-30", "yes", "007"])
def test_a_name_on_the_command_line_stands_as_it_was_typed(text):
    """YAML would read numbers, a date and true."""
    config = Config.from_values({}, [f"name={text}", f"output={text}", f"data.root={text}"])
    assert (config.name, config.output, config.data.root) == (text, Path(text), Path(text))


def test_null_on_the_command_line_is_no_name():
    assert Config.from_values({}, ["data.root=null", "model.pretrained=null"]).data.root is None
