"""Every mistake in a configuration is named with its key, its value, what is allowed, and its line."""

import re

import pytest

from captum_leam.errors import ConfigError
from captum_leam.study.config import Model, config_from, read_config
from captum_leam.study.listing import list_people
from captum_leam.study.networks import identify
from captum_leam.study.yaml_reader import MAX_BYTES
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


def test_a_valid_configuration_is_read_with_paths_and_layers(folder):
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
        ("seed: soon", 7, "Expected seed to be a whole number, 0 or more, got"),
        ("\nfractions:\n  - 0.1\n  - 2", 10, "Expected fractions[1] to be a number over 0 and at most 1, got 2."),
        ("fractions: []", 7, "Expected fractions to be a list of shares"),
        ("fractions: [.nan]", 7, "Expected fractions[0] to be a number over 0 and at most 1, got nan."),
        ("patterns:\n  grid: 3", 8, "Expected patterns.grid to be a whole number, 4 or more, at most 112, got 3."),
        (
            "patterns:\n  grids: 3",
            8,
            "patterns.grids is not a setting. Did you mean 'grid'? Allowed in patterns: fraction, grid",
        ),
        ("patterns: [1]", 7, "Expected patterns to be a mapping with fraction, grid"),
        (
            "fills: [blurr]",
            7,
            "Expected fills[0] to be one of zero, mean, blur, noisy linear, shuffle, got 'blurr'. Did you mean 'blur'?",
        ),
        ("fills: []", 7, "Expected fills to be one or more of"),
        ("controls: [centre, center]", 7, "Expected controls[1] to be one of random pixels"),
        ("transfer: maybe", 7, "Expected transfer to be true or false, got 'maybe'."),
        ("preset: fastest", 7, "Expected preset to be one of fast, default, best, layers, got 'fastest'."),
        (
            "leam: fast",
            7,
            "Expected leam to be a mapping with n_steps, path, norm, weighting, got 'fast'. Set preset: fast beside leam",
        ),
        ("leam: slow", 7, "got 'slow'. Set preset: default beside leam for the overall map, and leam: {n_steps: …}"),
        (
            "leam:\n  n_steps: 3\n  preset: fast",
            9,
            "Expected leam.preset to be absent, got 'fast'. Set preset: fast beside leam",
        ),
        (
            "leam: {n_steps: 1, path: conductance}",
            7,
            "Expected leam.path to be mean_gradient, got 'conductance'. For conductance, set n_steps to 2 or more",
        ),
        ("leam: {norm: l2}", 7, "Expected leam.norm to be one of detach, differentiate, fixed"),
        (
            "parser: bisenett",
            7,
            "Expected parser to be template, bisenet, parsenet, or FILE.py:callable, got 'bisenett'.",
        ),
        (
            "parser: {parser: template, scheme: mine}",
            7,
            "Expected parser.scheme to be one of celebamask_hq, template, got 'mine'.",
        ),
        (
            "pictures: {size: 5000}",
            7,
            "Expected pictures.size to be a whole number, 16 or more, at most 1024, got 5000.",
        ),
        (
            "pictures: {weights: lost.pth}",
            7,
            "Expected pictures.weights to be a file or folder of weights, got 'lost.pth'. There is no ",
        ),
        ("confidence: 1", 7, "Expected confidence to be a number over 0.5 and under 1, got 1."),
        ("batch_size: true", 7, "Expected batch_size to be a whole number, 1 or more, got"),
        ("groups: [sex]", 7, "People come from a folder, which has no columns for labels"),
        (
            "groups: {file: lost.csv, columns: [sex]}",
            7,
            "Expected groups.file to be a CSV table with one row for each person, got 'lost.csv'. There is no ",
        ),
        ("store_maps: some", 7, "Expected store_maps to be one of none, overall, all"),
        ("seed: 1\nseed: 2", 8, "seed is there twice."),
        ("people: other", 7, "people is there twice."),
        ("a: &x [1]\nb: *x", 8, "expected plain values, got the alias *x. Write the value out."),
        ("seed: !!python/object/apply:os.system [ls]", 7, "is no plain list or mapping"),
        ("seed: !!python/name:os.system x", 7, "Expected YAML, got a syntax error"),
        ("seed: [1", 7, "Expected YAML, got a syntax error"),
        ("a: " + "[" * 50, 7, "at most 20 levels of nesting"),
        ("? {a: 1}\n: 2", 7, "a list or mapping is no name"),
    ],
)
def test_every_mistake_is_named_with_its_line(folder, more, line, said):
    with pytest.raises(ConfigError, match=re.escape(f"c.yaml, line {line}: ")) as error:
        read(folder, GOOD + more)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "models: {a: nets.py:one}",
            "Expected people to be a folder with one folder of pictures for each person, or a CSV table of pictures, got nothing",
        ),
        ("people: faces", "Expected models to be a mapping of names"),
        (
            "people: lost\nmodels: {a: nets.py:one}",
            "line 1: Expected people to be a folder of people, or a CSV table",
        ),
        ("people: faces\nmodels: {}", "line 2: Expected models to be a mapping of names"),
        ("people: faces\nmodels:\n  a: nets.py", "line 3: Expected models.a to be FILE.py:callable"),
        ("people: faces\nmodels:\n  a: lost.py:one", "line 3: Expected models.a to be FILE.py:callable"),
        (
            "people: faces\nmodels:\n  a: lost.onnx",
            "line 3: Expected models.a to be an ONNX file, got 'lost.onnx'. There is no ",
        ),
        ("people: faces\nmodels:\n  a/b: nets.py:one", "under a name of 1 to 80 characters without /"),
        (
            "people: faces\nmodels:\n  a: {model: nets.py:one, explain: false}",
            "one model or more with explain: true",
        ),
        (
            "people: faces\nmodels:\n  a: {modle: nets.py:one}",
            "line 3: models.a.modle is not a setting. Did you mean 'model'?",
        ),
        ("people: faces\nmodels:\n  a: {model: nets.py:one, preprocessing: bgr}", "insightface, imagenet, unit"),
        ("- people", "Expected the configuration to be a mapping with people, models"),
        ("", "Expected the configuration to be a mapping with people, models"),
        (b"people: \xff", "Expected text in UTF-8"),
        ("x" * (MAX_BYTES + 1), "Expected a configuration of at most"),
    ],
)
def test_configurations_without_required_settings_raise(folder, text, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(folder, text)


def test_a_missing_configuration_raises(tmp_path):
    with pytest.raises(ConfigError, match="expected a YAML file, got no such file"):
        read_config(tmp_path / "lost.yaml")


def test_keywords_say_the_same_without_lines(folder):
    good = {"people": folder / "faces", "models": {"a": f"{folder}/nets.py:one"}}
    assert config_from(good).models[0].name == "a"
    with pytest.raises(ConfigError, match=r"Study: Expected fractions\[0\] to be a number over 0 and at most 1"):
        config_from({**good, "fractions": [2]})


def test_tabs_are_named(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("people: .\nmodels:\n\ta: torch.nn:Identity\n")
    with pytest.raises(
        ConfigError, match=r"line 3: Expected YAML, got a syntax error \(.*; indent with spaces, not with tabs\)"
    ):
        read_config(path)


def test_names_that_look_alike_are_not_two_people(tmp_path):
    (tmp_path / "people.csv").write_text("path,person\na.png,Ann\nb.png,ann\n")
    config = config_from({"people": "people.csv", "models": {"a": "torch.nn:Identity"}}, tmp_path)
    with pytest.raises(ConfigError, match="got 'Ann' and 'ann'"):
        list_people(config)


def test_group_labels_of_nobody_in_the_study_raise(tmp_path):
    (tmp_path / "people.csv").write_text("path,person\na.png,Ann\nb.png,Bob\n")
    (tmp_path / "groups.csv").write_text("person,age\np1,old\np2,young\n")
    settings = {
        "people": "people.csv",
        "models": {"a": "torch.nn:Identity"},
        "groups": {"file": "groups.csv", "columns": ["age"]},
    }
    with pytest.raises(
        ConfigError, match=r"expected people of the study \(Ann, Bob\) in column 'person', got none of them but p1, p2"
    ):
        list_people(config_from(settings, tmp_path))


def test_a_layer_that_only_another_network_has_raises_before_any_picture_is_read():
    with pytest.raises(
        ConfigError, match=r"models\.a: Expected the name of a layer of the model, got 'stem'.*set models\.a\.layers"
    ):
        identify(Model("a", "torch.nn:Identity", layers=("stem",)), "cpu", 48)
