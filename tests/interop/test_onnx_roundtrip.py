"""Read and write ONNX files: ONNX Runtime must compute the same from both, and what quench does not
know must survive."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("QUENCH_SHARED", ROOT / ".." / "shared"))
MODELS = sorted(SHARED.glob("models/*/*.onnx"))


def tool():
    build = os.environ.get("QUENCH_BUILD")
    quench = os.environ.get("QUENCH_BIN")
    places = [pathlib.Path(build)] if build else []
    places += [pathlib.Path(quench).resolve().parent] if quench else []
    places += [ROOT / "build"]
    for place in places:
        found = place / "tests" / "onnx_roundtrip"
        if found.exists():
            return str(found)
    pytest.skip("tests/onnx_roundtrip is not built (set QUENCH_BUILD)")


def roundtrip(source, target, mode="qdq", ok=True):
    done = subprocess.run([tool(), str(source), str(target), mode], capture_output=True, text=True)
    if ok:
        assert done.returncode == 0, done.stderr
    return done


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_of(path, seed=7):
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in session(path).get_inputs():
        dims = [d if isinstance(d, int) and d > 0 else 2 for d in value.shape]
        kind = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
        dtype = kind[value.type]
        data = rng.normal(size=dims) if dtype == np.float32 else rng.integers(0, 100, dims)
        feeds[value.name] = data.astype(dtype)
    return feeds


def outputs(path, feeds):
    running = session(path)
    values = running.run(None, feeds)
    return {o.name: v for o, v in zip(running.get_outputs(), values)}


def check_same(source, target, exact=True, atol=0.0):
    onnx.checker.check_model(str(target), full_check=True)
    feeds = feeds_of(source)
    a, b = outputs(source, feeds), outputs(target, feeds)
    assert list(a) == list(b)
    for name in a:
        if exact:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        else:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=atol, err_msg=name)


def ids(path):
    return path.stem


@pytest.mark.parametrize("mode", ["qdq", "bare"])
@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_real_models_compute_the_same(model, mode, tmp_path):
    target = tmp_path / "out.onnx"
    roundtrip(model, target, mode)
    # "bare" does not list weights as inputs, so the runtime may fold them and round differently.
    check_same(model, target, exact=mode == "qdq", atol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_simplified_models_get_their_activations_back(model, tmp_path):
    target = tmp_path / "out.onnx"
    roundtrip(model, target, "simplified")
    check_same(model, target, exact=False, atol=1e-4)
    old, new = op_counts(model), op_counts(target)
    assert "BatchNormalization" not in new
    for name in ("Conv", "Relu", "Clip"):
        assert old.get(name, 0) == new.get(name, 0)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_writing_is_deterministic_and_a_fixed_point(model, tmp_path):
    first, again, second = (tmp_path / n for n in ("1.onnx", "1b.onnx", "2.onnx"))
    roundtrip(model, first)
    roundtrip(model, again)
    roundtrip(first, second)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_names_and_metadata_stay(model, tmp_path):
    target = tmp_path / "out.onnx"
    proto = onnx.load(model)
    proto.metadata_props.add(key="owner", value="somebody")
    proto.doc_string = "what it is"
    proto.graph.doc_string = "the graph"
    proto.graph.node[0].doc_string = "first node"
    node = next(n for n in proto.graph.node if n.op_type == "Conv")
    node.attribute.append(helper.make_attribute("x_vendor", "keep me"))
    name = node.output[0]
    source = tmp_path / "in.onnx"
    onnx.save(proto, source)
    roundtrip(source, target)
    back = onnx.load(target)
    assert [(p.key, p.value) for p in back.metadata_props][-1] == ("owner", "somebody")
    assert back.doc_string == "what it is" and back.graph.doc_string == "the graph"
    assert any(n.doc_string == "first node" for n in back.graph.node)
    kept = next(n for n in back.graph.node if n.output[0] == name)
    assert [a.s for a in kept.attribute if a.name == "x_vendor"] == [b"keep me"]
    assert back.producer_name == proto.producer_name
    assert [i.name for i in back.graph.output] == [i.name for i in proto.graph.output]
    old, new = ({n.name for n in p.graph.node if n.name} for p in (proto, back))
    assert old <= new


@pytest.mark.parametrize("model", [m for m in MODELS if "squeezenet" in m.name], ids=ids)
def test_a_current_file_comes_back_unchanged(model, tmp_path):
    target = tmp_path / "out.onnx"
    roundtrip(model, target)
    assert onnx.load(target) == onnx.load(model)


# --- quantized files ------------------------------------------------------------------------------
class Reader:
    def __init__(self, path):
        from onnxruntime.quantization import CalibrationDataReader  # noqa: F401

        self.items = iter([feeds_of(path, seed) for seed in range(4)])

    def get_next(self):
        return next(self.items, None)


def quantized(model, target, fmt, per_channel, activation, weight="QInt8"):
    quantization = pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = target.with_suffix(".ready.onnx")
    try:
        quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    except Exception:  # the tool cannot prepare every model; it can quantize them all
        ready = model
    quantization.quantize_static(
        str(ready),
        str(target),
        Reader(ready),
        quant_format=getattr(quantization.QuantFormat, fmt),
        per_channel=per_channel,
        activation_type=getattr(quantization.QuantType, activation),
        weight_type=getattr(quantization.QuantType, weight),
    )


def op_counts(path):
    counts = {}
    for node in onnx.load(path).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


SMALL = [m for m in MODELS if m.stem in ("kws_dscnn", "resnet20_cifar10", "squeezenet_v1.1", "RFB-320")]


@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("fmt", ["QDQ", "QOperator"])
@pytest.mark.parametrize("model", SMALL, ids=ids)
def test_quantized_files_of_the_runtimes_own_tool(model, fmt, per_channel, activation, tmp_path):
    source = tmp_path / "source.onnx"
    if onnx.load(model).opset_import[0].version < 13:
        # The tool wants a current opset, and weights that are constants.
        current = tmp_path / "current.onnx"
        roundtrip(model, current, "bare")
        model = current
    quantized(model, source, fmt, per_channel, activation)
    same, other = tmp_path / "same.onnx", tmp_path / "other.onnx"
    mode = {"QDQ": "qdq", "QOperator": "qoperator"}[fmt]
    roundtrip(source, same, mode)
    check_same(source, same)
    again = tmp_path / "again.onnx"
    roundtrip(same, again, mode)
    assert again.read_bytes() == same.read_bytes()
    roundtrip(source, other, "qoperator" if fmt == "QDQ" else "qdq")
    onnx.checker.check_model(str(other), full_check=True)
    feeds = feeds_of(source)
    a, b = outputs(source, feeds), outputs(other, feeds)
    for name in a:
        assert np.abs(a[name] - b[name]).max() <= 0.05 * max(1.0, np.abs(a[name]).max())
