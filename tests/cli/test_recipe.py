"""Recipes that were edited: what is wrong is refused, and the message has its path."""

import copy
import json
import re

import pytest
from test_commands import PREPROCESSING, assert_one_error_line, quantize


@pytest.fixture(scope="module")
def made(quench, tmp_path_factory):
    """A folder with a model, and two recipes that have every key between them."""
    from conftest import small_classifier
    import numpy as np
    import onnx
    from PIL import Image

    folder = tmp_path_factory.mktemp("recipes")
    onnx.save(small_classifier(), folder / "m.onnx")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(7)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"pictures/p{i}.png")
    recipes = {}
    for name, options in {
        "plain": ["--skip", "op:Softmax", "--set", "conv1:weight-bits=7", "--resize", "18", "--crop", "16"],
        "trained": ["--features", "ema-train", "--weights", "admm", "--weight-bits", "5"],
    }.items():
        path = folder / f"{name}.json"
        result = quantize(quench, folder, *options, "--save-recipe", path)
        assert result.returncode == 0, result.stderr
        recipes[name] = json.loads(path.read_text())
        assert replay(quench, folder, recipes[name]).returncode == 0
    assert "batch_norm" in recipes["trained"] and "scales" in recipes["trained"]
    return folder, recipes


def replay(quench, folder, recipe):
    text = recipe if isinstance(recipe, str) else json.dumps(recipe)
    (folder / "r.json").write_text(text)
    return quench("quantize", "m.onnx", "--dry-run", "-q", "--recipe", "r.json", cwd=folder)


FIXED = ("overrides", "samples", "layers", "preprocessing")


def step(path, key, value):
    if isinstance(value, list):
        return f"{path}[{key}]"
    named = path and not path.startswith(FIXED)
    return f'{path}["{key}"]' if named else f"{path}.{key}" if path else key


def walk(value, path="", keys=()):
    """(path as a message has it, keys) of every value; of long lists and objects the first and the last."""
    if path:
        yield path, keys
    children = list(enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ())
    if keys and len(children) > 12:
        children = children[:1]
    elif keys and isinstance(value, list):
        children = children[:: max(1, len(children) - 1)]
    for key, child in children:
        yield from walk(child, step(path, key, value), (*keys, key))


def changed(recipe, keys, value):
    copied = copy.deepcopy(recipe)
    at = copied
    for key in keys[:-1]:
        at = at[key]
    if value is KeyError:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return copied


def get(recipe, keys):
    for key in keys:
        recipe = recipe[key]
    return recipe


def wrong_types(value):
    kind = bool if isinstance(value, bool) else float if isinstance(value, (int, float)) else type(value)
    return [w for w in (True, 2.5, "x", [], {}, None) if
            (bool if isinstance(w, bool) else float if isinstance(w, float) else type(w)) is not kind]  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "trained"])
def test_every_wrong_type_is_named_by_its_path(quench, made, name):
    folder, recipes = made
    seen = set()
    for path, keys in walk(recipes[name]):
        shape = re.sub(r'\[("[^"]*"|\d+)\]', "[]", path)
        for wrong in wrong_types(get(recipes[name], keys)):
            if (shape, repr(wrong)) in seen:
                continue
            seen.add((shape, repr(wrong)))
            result = replay(quench, folder, changed(recipes[name], keys, wrong))
            assert_one_error_line(result, 1)
            assert result.stderr.startswith(f"error: r.json: {path}"), (path, wrong, result.stderr)
            assert re.match(r"[:.\[]", result.stderr[len(f"error: r.json: {path}"):]), result.stderr
    assert len({shape for shape, _ in seen}) > 30


@pytest.mark.parametrize("name", ["plain", "trained"])
def test_missing_and_unknown_keys(quench, made, name):
    folder, recipes = made
    for path, keys in walk(recipes[name]):
        required = path == "recipe" or re.fullmatch(r"(overrides|samples)\[\d+\]\.\w+|layers\[\d+\]\.(name|op|int8)", path)
        fixed = len(keys) == 1 or path.startswith(FIXED) and isinstance(keys[-1], str)
        if required:
            result = replay(quench, folder, changed(recipes[name], keys, KeyError))
            assert_one_error_line(result, 1, f"r.json: {path}: the key is missing")
        if fixed and len(keys[-1]) > 3:
            near = keys[-1][1:]
            parent = changed(recipes[name], (*keys[:-1], near), 1)
            result = replay(quench, folder, parent)
            wanted = path[: -len(keys[-1])] + near
            assert_one_error_line(result, 1, f"r.json: {wanted}: unknown key: did you mean \"{keys[-1]}\"?")
    # without a section of decisions it is decided again, which needs samples
    for key in recipes[name]:
        if key != "recipe":
            result = replay(quench, folder, changed(recipes[name], (key,), KeyError))
            assert result.returncode == 0 or re.search("no calibration data|_equalized", result.stderr), result.stderr


WRONG_VALUES = [
    ("recipe", 0, "a recipe of version 0; this is quench"),
    ("recipe", 2, "which reads version 1"),
    ("recipe", 1 << 40, "version 1099511627776"),
    ("features", "mse2", 'found "mse2": did you mean "mse"?'),
    ("weights", "magic", 'found "magic"'),
    ("target", "tensorrt ", 'did you mean "tensorrt"?'),
    ("weight_levels", "pow3", 'did you mean "pow2"?'),
    ("granularity", "layer", "expected one of channel, tensor"),
    ("activations", "i8", "expected one of u8, s8, s8sym"),
    ("calibrate_with", "weights", "float, quantized-weights"),
    ("bias_correction", "yes", "on, off"),
    ("equalize", "", "on, off"),
    ("x86", "amx", "any, avx2, vnni"),
    ("scheme", "int5", "expected one of static, dynamic"),
    ("weight_block", 48, "0, 16, 32"),
    ("weight_bits", 1, "found 1"),
    ("weight_bits", 9, "2 to 8"),
    ("weight_clamp", 128, "0 to 127"),
    ("weight_clamp", -1, "found -1"),
    ("feature_clamp", 1 << 33, "0 to 127"),
    ("batch", 0, "1 or more"),
    ("overrides[0].key", "skipp", "unknown key"),
    ("overrides[0].name", "op:Sofmax", 'did you mean "op:Softmax"?'),
    ("overrides[0].name", "", "empty name"),
    ("overrides[0].name", "/(/", "pattern"),
    ("overrides[1].value", "nine", "expected 2 to 8"),
    ("overrides[1].value", "", "expected 2 to 8"),
    ('ranges["x"]', [1, 0], "expected [low, high], found [1, 0]"),
    ('ranges["x"]', [0, 1, 2], "found a list of 3"),
    ('ranges["x"][1]', 1e39, "float32"),
    ('biases["conv1"][0]', 1e300, "float32"),
    ('biases["conv1"]', [0.5], "expected 8 numbers, one per output channel, found 1"),
    ('equalization["conv2"][0]', 65, "-64 to 64"),
    ('equalization["conv2"][0]', 0.5, "whole number"),
    ('equalization["conv2"]', [1, 2], "2 exponents for 8 channels"),
    ('integers["conv1"]', "AAAA", "base64"),
    ('integers["conv1"]', "not base64", "base64"),
    ("samples[0].hash", "xyz", "16 hexadecimal digits"),
    ("preprocessing.filter", "bicubik", 'did you mean "bicubic"?'),
    ("preprocessing.mean", [0] * 5, "at most 4"),
    ("preprocessing.crop", [1], "[width, height]"),
    ("preprocessing.resize_shorter", -4, "0 or more"),
    ("layers[0].bits", -1, "0 or more"),
]


def keys_of(path):
    return tuple(int(i) if i else name or key for key, name, i in re.findall(r'(\w+)(?![^\[]*"\])|\["([^"]*)"\]|\[(\d+)\]', path))


@pytest.mark.parametrize(("path", "value", "word"), WRONG_VALUES, ids=lambda v: str(v)[:30])
def test_wrong_values(quench, made, path, value, word):
    folder, recipes = made
    result = replay(quench, folder, changed(recipes["plain"], keys_of(path), value))
    assert_one_error_line(result, 1, f"r.json: {path}: ", word)


@pytest.mark.parametrize("name", ["plain", "trained"])
@pytest.mark.parametrize("section", ["ranges", "biases", "equalization", "integers", "scales", "batch_norm"])
def test_names_that_the_model_does_not_have(quench, made, name, section):
    folder, recipes = made
    if not recipes[name].get(section):
        pytest.skip(f"no {section} in this recipe")
    old = next(k for k in recipes[name][section] if len(k) > 2)
    recipe = copy.deepcopy(recipes[name])
    recipe[section] = {old + "_" if k == old else k: v for k, v in recipe[section].items()}
    result = replay(quench, folder, recipe)
    assert_one_error_line(result, 1, f'r.json: {section}["{old}_"]: no such ')
    if section != "batch_norm":
        assert f'did you mean "{old}"?' in result.stderr


def test_values_of_other_sections(quench, made):
    folder, recipes = made
    moved = copy.deepcopy(recipes["plain"])
    moved["equalization"]["softmax"] = [0, 0, 0, 0]
    assert_one_error_line(replay(quench, folder, moved), 1, 'r.json: equalization["softmax"]: 4 exponents for 0')
    for path, value, word in [
        ('scales["conv2"][0]', 0, "above 0"),
        ('scales["conv2"]', [1.0], "found 1"),
        ('batch_norm["bn1"][1][0]', -1, "0 or more"),
        ('batch_norm["bn1"][0]', [1], "expected 8 numbers"),
        ('batch_norm["bn1"]', [[1]], "[means, variances]"),
    ]:
        result = replay(quench, folder, changed(recipes["trained"], keys_of(path), value))
        assert_one_error_line(result, 1)
        assert f"r.json: {path}: " in result.stderr and word in result.stderr, result.stderr


def test_text_that_is_not_json_is_named_by_line_and_column(quench, made):
    folder, recipes = made
    text = json.dumps(recipes["plain"], indent=1)
    for cut in range(0, len(text) - 1, max(1, len(text) // 60)):
        result = replay(quench, folder, text[:cut])
        assert_one_error_line(result, 1)
        assert re.match(r"error: r\.json:\d+:\d+: \S", result.stderr), result.stderr
    for text, place in [('{"recipe": 1,\n "batch": 1,\n "batch": 2}', "3:"), ('{"recipe" 1}', "1:"),
                        ('{"recipe": 1}\n{}', "2:"), ('{"recipe": 1e999}', "1:"), ("[" * 5000, "1:"),
                        ('{"recipe": 1, "notes": ["\n"]}', "1:")]:  # fmt: skip
        result = replay(quench, folder, text)
        assert_one_error_line(result, 1, f"r.json:{place}")
    assert_one_error_line(replay(quench, folder, "[]"), 1, "r.json: not a JSON object")
