"""The config: accepted and refused values, and messages."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from paddle_resnet.config import Config
from paddle_resnet.config.loading import known_keys
from paddle_resnet.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("name", ["photos #2", "#1", "&a", "*a", "- a", "a: b", "!x", "@x", "{", "a\\nb"])
def test_a_path_on_the_command_line_is_no_yaml(config_file, name):
    assert Config.load(config_file, [f"data.root={name}"]).data.root == Path(name)


@pytest.mark.parametrize("name", ["'photos #2'", '"photos #2"'])
def test_a_quoted_path_on_the_command_line(config_file, name):
    assert Config.load(config_file, [f"data.root={name}"]).data.root == Path("photos #2")


@pytest.mark.parametrize(
    "override", ["trian.epochs=3", "train={epochs: -1}", "train={epoks: 1}", " train.epochs=3", ".epochs=3", "train.=3"]
)
def test_wrong_groups_on_the_command_line_are_not_blamed_on_the_file(config_file, override):
    assert refused(config_file, override).startswith(f"-o {override}: ")


@pytest.mark.parametrize("key", ["epochs", "batch_size", "accumulate", "patience"])
def test_numbers_that_memory_cannot_hold(config_file, key):
    assert f"train.{key}" in refused(config_file, f"train.{key}=99999999999")


def test_names_may_look_like_numbers(config_file):
    config = Config.load(config_file, ["name=2024", "data.root=7", "output=1.5"])
    assert (config.name, config.data.root, config.output) == ("2024", Path("7"), Path("1.5"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.epochs=3", "train.epochs=4"], True),
        (["train.seed=3", "train={epochs: 4}"], True),
        (["train.epochs=4", "train.epochs=4"], False),
        (["train={epochs: 3}", "train.epochs=4"], False),
    ],
)
def test_later_override_wins_and_lost_values_are_logged(config_file, caplog, monkeypatch, overrides, said):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    assert Config.load(config_file, overrides).train.epochs == 4
    assert ("replaces an earlier -o" in caplog.text) is said


def test_a_group_that_replaces_keys_of_the_file_names_them(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    (tmp_path / "config.yaml").write_text("name: a\ntrain: {epochs: 9, batch_size: 7, seed: 5}\n")
    config = Config.load(tmp_path / "config.yaml", ["train={epochs: 3}"])
    assert config.train.seed == Config.from_values({"name": "a"}).train.seed
    assert "-o train={epochs: 3} replaces all of train" in caplog.text
    assert "batch_size, seed" in caplog.text


def test_resolved_config_reproduces_itself(config_file, tmp_path):
    config = Config.load(config_file, ["augment.scale=[0.5, 1]", "data.root=a b", "train.clip_norm=1"])
    config.save(tmp_path / "saved.yaml")
    assert Config.load(tmp_path / "saved.yaml") == config


def test_resolved_config_names_every_key(config_file):
    import yaml

    resolved = yaml.safe_load(Config.load(config_file).to_yaml())
    for key in known_keys(Config):
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
        ("train.lr=0.1", ["unknown key", 'did you mean "train.learning_rate"']),
        ("bs=8", ["unknown key", 'did you mean "train.batch_size"']),
        ("batch=8", ['did you mean "train.batch_size"']),
        ("augment.hflip=1", ['did you mean "augment.flip"']),
        ("tracking=tensorboard", ["tracking: expected a list in brackets", "'tensorboard'"]),
        ("train.wd=0", ['did you mean "train.weight_decay"']),
        ("model.pretrained=true", ["model.pretrained", "imagenet", "got true"]),
        ("train.class_weights=[1, 0]", ["train.class_weights", "balanced", "above 0", "[1, 0]"]),
        ("train.stop_mixing=0.1", ["train.stop_mixing", "augment.mixup"]),
        ("train={minutes: 1, seeds: [0, 1]}", ["minutes", "seeds"]),
        ("train={monitor: epoch, patience: 2}", ["patience (2)", "monitor epoch", "null"]),
        ("train={extended_from: [3], epochs: 3}", ["extended_from", "do not rise"]),
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
        ("name=CON", ["name", "CON is the name of a device on Windows", "choose another name"]),
        ("name=lpt1.txt", ["name", "lpt1.txt is the name of a device on Windows"]),
        ("name=run.", ["name", "run. ends with a dot"]),
        ("name=a:b", ["name", "letters", "'a:b'"]),
        ("train.epochs", ["-o train.epochs", "key=value"]),
        ("name=", ["name", "got no value; write one"]),
        ("output=", ["output: expected a path", "got no value"]),
        ("data=", ["data: expected a group", "got no value"]),
        ("=3", ["key=value"]),
    ],
)
def test_wrong_override_is_one_line(config_file, override, words):
    message = refused(config_file, override)
    for word in words:
        assert word in message


def test_a_dotted_key_in_a_file_is_told_how_groups_are_written(config_file):
    config_file.write_text("train.epochs: 3\n")
    assert '"epochs" stands indented below "train:"' in refused(config_file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n\tepochs: 3\n", ["line 2", "character that cannot start"]),
        ('data:\n  root: "C:\\photos"\n', ["line 2", "escape"]),
        ("train:\n epochs: 3\n  seed: 4\n", ["line 3", "mapping values are not allowed"]),
    ],
)
def test_what_is_wrong_with_the_yaml_is_told(config_file, text, words):
    config_file.write_text(text)
    message = refused(config_file)
    assert all(word in message for word in words), message


def test_wrong_key_in_the_file_names_the_file(config_file):
    config_file.write_text("trane:\n  epochs: 3\n")
    message = refused(config_file)
    assert str(config_file) in message and '"train"' in message


def test_missing_file(tmp_path):
    assert "nowhere.yaml" in refused(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text", ["train: [1, 2", "- a\n- b\n", "just words", "[" * 3000, "a: 1\n---\nb: 2", "name: *b"]
)
def test_malformed_file(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "bad.yaml" in refused(path)


def test_binary_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01\x80")
    assert "bad.yaml" in refused(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-16"])
def test_a_config_that_windows_wrote_is_read(tmp_path, encoding):
    """`>` of PowerShell 5 writes UTF-16 with a mark, and Notepad may put one before UTF-8."""
    path = tmp_path / "own.yaml"
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path.write_bytes(f"{mark}name: own\r\ndata:\r\n  root: \u56fe\u7247\r\n".encode(encoding))
    assert Config.load(path).data.root == Path("\u56fe\u7247")


def test_a_config_in_another_encoding_says_how_to_save_it(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes("name: own\ndata: {root: \u732b\u72d7}\n".encode("gbk"))
    assert refused(path) == (
        f"{path}: is no text in UTF-8; save it as UTF-8 (Notepad: Save as, Encoding; Excel: CSV UTF-8)"
    )


def test_config_is_frozen(config_file):
    with pytest.raises(Exception, match="frozen"):
        Config.load(config_file).train.epochs = 9


@pytest.mark.parametrize(
    "text", ["1_2", "2026-13-45", "1:30", "1.50", "0x10", "12e3", "2024-05-01", "2024-02-30", "yes", "007"]
)
def test_name_on_the_command_line_stays_as_typed(text):
    """YAML would read numbers, a date and true."""
    config = Config.from_values({}, [f"output={text}", f"data.root={text}", f"model.pretrained={text}"])
    assert (config.output, config.data.root, config.model.pretrained) == (Path(text), Path(text), text)


def test_name_in_a_file_stays_as_typed(config_file):
    config_file.write_text("name: 007\noutput: 2024_01\ndata: {root: no}\nmodel: {pretrained: 1e3}\n")
    config = Config.load(config_file)
    assert (config.name, config.output, config.data.root) == ("007", Path("2024_01"), Path("no"))
    assert config.model.pretrained == "1e3"


def test_null_on_the_command_line_is_none():
    assert Config.from_values({}, ["data.root=null", "model.pretrained=null"]).data.root is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochs: 1}\nname: a\ntrain: {seed: 2}\n", ["line 3", '"train"', "twice", "line 1"]),
        ("train:\n  epochs: 1\n  seed: 2\n  'epochs': 3\n", ["line 4", '"train.epochs"', "line 2"]),
        ('name: a\n"na\\x6de": b\n', ["line 2", '"name"', "twice"]),
        ("train: {epochs: 1, epochs: 1}\n", ["line 1", "train.epochs"]),
        ("train: &t {seed: 1}\ndata:\n  <<: *t\n", ["line 3", "merge key"]),
        ("train: {epochs: !!int ''}\n", ["line 1", "tag"]),
        ("data: {verify: !!bool maybe}\n", ["line 1", "tag"]),
        ("name: !!timestamp x\n", ["line 1", "tag"]),
        ("!!python/object/apply:os.system [true]\n", ["line 1", "tag"]),
        ("? [a, b]\n: 1\n", ["line 1", "key"]),
        ("1: 2\n", ["unknown key", '"1"']),
        ("a: &a [*a]\n", ["line 1", "*a"]),
        ("[" * 30 + "]" * 30, ["levels"]),
        ("train: {epochs: 0x" + "f" * 5000 + "}", ["train.epochs", "integer"]),
        ("train: {epochs: " + "9" * 5000 + "}", ["train.epochs", "integer"]),
        ("train: {epochs: 010}", ["train.epochs", "'010'"]),
        ("train: {epochs: 1:30}", ["train.epochs", "'1:30'"]),
        ("train: {learning_rate: 1:30}", ["train.learning_rate", "'1:30'"]),
        ("train: {learning_rate: 010}", ["train.learning_rate", "'010'"]),
        ("train: {learning_rate: 1e400}", ["train.learning_rate", "finite"]),
        ("train: {learning_rate: 2024-01-01}", ["train.learning_rate", "number"]),
        ("name: 1" + ":10" * 100_000, ["name"]),
        ("k" * 300_000 + ":\n  - 1\n", ["bad.yaml"]),
        ("? " + "k" * 300_000 + "\n: 1\n", ["unknown key"]),
        ("name: [" + "x," * 100_000 + "]", ["name"]),
        ("#" * (1 << 20) + "\n", ["1 MiB"]),
    ],
    ids=range(26),
)
def test_malformed_yaml_is_one_short_line(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    message = refused(path)
    assert len(message) < 700
    for word in words:
        assert word in message


def test_aliases_are_read_but_do_not_multiply(tmp_path):
    path = tmp_path / "aliases.yaml"
    path.write_text("data:\n  mean: &grey [0.5, 0.5, 0.5]\n  std: *grey\n")
    assert Config.load(path).data.std == (0.5, 0.5, 0.5)
    levels = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    path.write_text("a0: &a0 [x]\n" + levels + "name: *a9\n")
    assert "aliases" in refused(path)


@pytest.mark.parametrize("value", ["true", "yes", "no", "True", "'0.1'"])
@pytest.mark.parametrize(
    "override",
    [
        "train.learning_rate={}",
        "augment.mixup={}",
        "train.weight_decay={}",
        "train.clip_norm={}",
        "train.ema={}",
        "train.epochs={}",
        "train.seeds=[1, {}]",
        "data.mean=[0.5, {}, 0.5]",
        "augment.scale=[{}, 1]",
        "train.milestones=[{}]",
        "train={{learning_rate: {}}}",
    ],
)
def test_booleans_and_texts_are_not_numbers(config_file, override, value):
    assert "valid" in refused(config_file, override.format(value))


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("5.0e-4", 0.0005), (".5", 0.5), ("1", 1.0), ("+0.1", 0.1), ("1_0.5", 10.5)]
)
def test_numbers_in_any_notation(config_file, text, value):
    config_file.write_text(f"train: {{learning_rate: {text}, epochs: 1_000, seed: 0x10}}\n")
    train = Config.load(config_file).train
    assert (train.learning_rate, train.epochs, train.seed) == (value, 1000, 16)


@pytest.mark.parametrize("word", ["yes", "on", "True", "true"])
def test_yes_and_on_are_still_true_for_a_switch(config_file, word):
    assert Config.load(config_file, [f"augment.flip={word}"]).augment.flip is True


def test_paths_begin_in_the_home_folder(config_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config_file.write_text("output: ~/runs\ndata: {root: ~/data}\nmodel: {pretrained: ~/w.pth}\n")
    config = Config.load(config_file)
    assert (config.output, config.data.root) == (tmp_path / "runs", tmp_path / "data")
    assert config.model.pretrained == str(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["output", "data.root", "model.pretrained"])
def test_unknown_home_folder_is_named(config_file, key):
    assert "home folder" in refused(config_file, f"{key}=~no-such-user/x")


@pytest.mark.posix
def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo")
    assert "not a regular file" in refused(Path("/dev/zero"))
    assert "folder" in refused(tmp_path)


def test_an_override_that_is_not_utf8_is_one_line():
    with pytest.raises(UsageError, match="not UTF-8 text"):
        Config.from_values({}, ["data.root=~/\udcff"])


@pytest.mark.parametrize("value", ["0", "two", "true", "2.5", "5000"])
def test_threads_are_auto_or_a_count(value):
    with pytest.raises(UsageError, match=r"train\.threads: expected auto, or a number from 1 to 256, got "):
        Config.load("quickstart", [f"train.threads={value}"])


@pytest.mark.parametrize(
    "name", ["a\x85b", "\x85", "a \x85 b", "a\u2028b", "\u2029 ", "a\xa0\u3000b", "a\tb\nc", "x\u200d'\""]
)
def test_a_path_of_any_characters_survives_the_written_config(tmp_path, name):
    config = Config.from_values({"data": {"root": name}, "model": {"pretrained": f"weights/{name}"}})
    config.save(tmp_path / "config.yaml")
    again = Config.load(tmp_path / "config.yaml")
    assert (str(again.data.root), again.model.pretrained) == (name, f"weights/{name}")


def test_a_folder_does_not_stand_in_the_way_of_a_config_of_the_project(tmp_path, monkeypatch):
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstar").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Config.load("quickstart") == Config.load(PROJECT / "configs/quickstart.yaml")
    assert 'did you mean "quickstart"' in refused("quickstar")
    assert "a folder" in refused("./quickstar/../quickstart/")
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("name: mine\n")
    assert Config.load("quickstart").name == "mine"
