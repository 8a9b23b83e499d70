"""Every mistake in a configuration is named with its key, its value, what is allowed, and its line."""

import re

import pytest

from captum_leam.errors import ConfigError
from captum_leam.study.config import MOST_BYTES, Model, config_from, read_config
from captum_leam.study.listing import list_people
from captum_leam.study.networks import known
from tests.helpers.tiny_study import write_study

GOOD = """people: faces
models:
  one: nets.py:one
  two:
    model: nets.py:two
    layers: [stem]
"""


@pytest.fixture
def folder(tmp_path):
    write_study(tmp_path)
    return tmp_path


def read(folder, text):
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path)


def test_a_good_one(folder):
    config = read(folder, GOOD + "fractions: [0.05, 1e-2, 0.05]\nseed: 7\n")
    assert config.people.path == folder / "faces"
    assert config.models[1].layers == ("stem",)
    assert config.models[0].where == f"{folder}/nets.py:one"
    assert config.fractions == (0.01, 0.05)
    assert (config.seed, config.out) == (7, folder / "results")


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("fraction: [0.1]", 7, "fraction is not a setting. Did you mean 'fractions'?"),
        ("seed: soon", 7, "seed is 'soon'; needed is a whole number, 0 or more."),
        ("\nfractions:\n  - 0.1\n  - 2", 10, "fractions[1] is 2; needed is a number over 0 and at most 1."),
        ("fractions: []", 7, "fractions is []; needed is a list of shares"),
        ("fractions: [.nan]", 7, "fractions[0] is nan"),
        ("patterns:\n  grid: 3", 8, "patterns.grid is 3; needed is a whole number, 4 or more, at most 112."),
        (
            "patterns:\n  grids: 3",
            8,
            "patterns.grids is not a setting. Did you mean 'grid'? Allowed in patterns: fraction, grid",
        ),
        ("patterns: [1]", 7, "patterns is [1]; needed is a mapping with fraction, grid"),
        (
            "fills: [blurr]",
            7,
            "fills[0] is 'blurr'; needed is one of zero, mean, blur, noisy linear, shuffle (did you mean 'blur'?).",
        ),
        ("fills: []", 7, "fills is []; needed is one or more of"),
        ("controls: [centre, center]", 7, "controls[1] is 'center'; needed is one of random pixels"),
        ("transfer: maybe", 7, "transfer is 'maybe'; needed is true or false."),
        ("leam: slow", 7, "leam is 'slow'; needed is one of fast, default, best"),
        ("leam:\n  preset: fast\n  n_steps: 3", 9, "leam.n_steps is 3; needed is either preset or n_steps"),
        (
            "leam: {n_steps: 1, path: conductance}",
            7,
            "leam.path is 'conductance'; needed is mean_gradient, or n_steps of 2 or more",
        ),
        ("leam: {norm: l2}", 7, "leam.norm is 'l2'; needed is one of detach, differentiate, fixed"),
        ("parser: bisenett", 7, "parser is 'bisenett'; needed is template, bisenet, parsenet, or FILE.py:callable."),
        ("parser: {parser: template, scheme: mine}", 7, "parser.scheme is 'mine'"),
        ("pictures: {size: 5000}", 7, "pictures.size is 5000; needed is a whole number, 16 or more, at most 1024."),
        (
            "pictures: {weights: lost.pth}",
            7,
            "pictures.weights is 'lost.pth'; needed is a file or folder of weights that exists",
        ),
        ("confidence: 1", 7, "confidence is 1; needed is a number over 0.5 and under 1."),
        ("batch_size: true", 7, "batch_size is True; needed is a whole number, 1 or more."),
        ("groups: [sex]", 7, "people come from a folder, which has no columns for labels"),
        ("groups: {file: lost.csv, columns: [sex]}", 7, "groups.file is 'lost.csv'"),
        ("store_maps: some", 7, "store_maps is 'some'; needed is one of none, overall, all"),
        ("seed: 1\nseed: 2", 8, "seed is there twice."),
        ("people: other", 7, "people is there twice."),
        ("a: &x [1]\nb: *x", 8, "*x is an alias; write the value out instead."),
        ("seed: !!python/object/apply:os.system [ls]", 7, "is no plain list or mapping"),
        ("seed: !!python/name:os.system x", 7, "this is no YAML"),
        ("seed: [1", 7, "this is no YAML"),
        ("a: " + "[" * 50, 7, "nested over 20 deep"),
        ("? {a: 1}\n: 2", 7, "a list or mapping is no name"),
    ],
)
def test_mistakes(folder, more, line, said):
    with pytest.raises(ConfigError, match=re.escape(f"c.yaml, line {line}: ")) as error:
        read(folder, GOOD + more)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "models: {a: nets.py:one}",
            "people is missing; needed is a folder with one folder of pictures for each person",
        ),
        ("people: faces", "models is missing; needed is a mapping of names"),
        (
            "people: lost\nmodels: {a: nets.py:one}",
            "line 1: people is 'lost'; needed is a folder of people, or a CSV table",
        ),
        ("people: faces\nmodels: {}", "line 2: models is {}; needed is a mapping of names"),
        ("people: faces\nmodels:\n  a: nets.py", "line 3: models.a is 'nets.py'; needed is FILE.py:callable"),
        ("people: faces\nmodels:\n  a: lost.py:one", "line 3: models.a is 'lost.py:one'; needed is FILE.py:callable"),
        (
            "people: faces\nmodels:\n  a: lost.onnx",
            "line 3: models.a is 'lost.onnx'; needed is an ONNX file that exists",
        ),
        ("people: faces\nmodels:\n  a/b: nets.py:one", "under a name of 1 to 80 characters without /"),
        (
            "people: faces\nmodels:\n  a: {model: nets.py:one, explain: false}",
            "needed is one model or more with explain: true",
        ),
        (
            "people: faces\nmodels:\n  a: {modle: nets.py:one}",
            "line 3: models.a.modle is not a setting. Did you mean 'model'?",
        ),
        ("people: faces\nmodels:\n  a: {model: nets.py:one, preprocessing: bgr}", "insightface, imagenet, unit"),
        ("- people", "needed is a mapping with people, models"),
        ("", "needed is a mapping with people, models"),
        (b"people: \xff", "this is no text in UTF-8"),
        ("x" * (MOST_BYTES + 1), "a configuration has at most"),
    ],
)
def test_whole_configurations(folder, text, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(folder, text)


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no such configuration"):
        read_config(tmp_path / "lost.yaml")


def test_keywords_say_the_same_without_lines(folder):
    good = {"people": folder / "faces", "models": {"a": f"{folder}/nets.py:one"}}
    assert config_from(good).models[0].name == "a"
    with pytest.raises(ConfigError, match=r"Study: fractions\[0\] is 2; needed is a number over 0 and at most 1"):
        config_from({**good, "fractions": [2]})


def test_tabs_are_named(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("people: .\nmodels:\n\ta: torch.nn:Identity\n")
    with pytest.raises(ConfigError, match=r"line 3: this is no YAML \(.*; indent with spaces, not with tabs\)"):
        read_config(path)


def test_names_that_look_alike_are_not_two_people(tmp_path):
    (tmp_path / "people.csv").write_text("path,person\na.png,Ann\nb.png,ann\n")
    config = config_from({"people": "people.csv", "models": {"a": "torch.nn:Identity"}}, tmp_path)
    with pytest.raises(ConfigError, match="'Ann' and 'ann' differ only by case"):
        list_people(config)


def test_group_labels_of_nobody_in_the_study(tmp_path):
    (tmp_path / "people.csv").write_text("path,person\na.png,Ann\nb.png,Bob\n")
    (tmp_path / "groups.csv").write_text("person,age\np1,old\np2,young\n")
    settings = {
        "people": "people.csv",
        "models": {"a": "torch.nn:Identity"},
        "groups": {"file": "groups.csv", "columns": ["age"]},
    }
    with pytest.raises(ConfigError, match=r"none of its 2 people \(p1, p2\) is in the study \(Ann, Bob\)"):
        list_people(config_from(settings, tmp_path))


def test_a_layer_that_only_another_network_has_is_told_before_any_picture_is_read():
    with pytest.raises(ConfigError, match=r"models\.a: the model has no layer 'stem'.*give models\.a\.layers"):
        known(Model("a", "torch.nn:Identity", layers=("stem",)), "cpu", 48)
