"""ONNX networks written as .mnn and run by MNN; .mnn networks written as ONNX and run by
onnxruntime."""

import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mnn_operators import Case, cases, i64, node, values
from networks import NETWORKS, network

MNN = pytest.importorskip("MNN", reason="MNN's Python package is not installed")

ALL = list(cases())


class Runtime:
    """A model in MNN's interpreter, for float inputs by name."""

    def __init__(self, path):
        self.interpreter = MNN.Interpreter(str(path))
        self.session = self.interpreter.createSession({"numThread": 1})

    def feed(self, feeds):
        tensors = self.interpreter.getSessionInputAll(self.session)
        if any(tuple(tensors[n].getShape()) != v.shape for n, v in feeds.items()):
            for name, value in feeds.items():
                self.interpreter.resizeTensor(tensors[name], tuple(value.shape))
            self.interpreter.resizeSession(self.session)
        for name, value in feeds.items():
            tensor = self.interpreter.getSessionInput(self.session, name)
            # axes are given as the file has them, whatever their meaning
            kind = tensor.getDimensionType()
            host = MNN.Tensor(value.shape, MNN.Halide_Type_Float, value.ravel().copy(), kind)
            tensor.copyFrom(host)

    def run(self, **feeds):
        self.feed(feeds)
        self.interpreter.runSession(self.session)
        results = {}
        for name, tensor in self.interpreter.getSessionOutputAll(self.session).items():
            shape = tensor.getShape()
            real = tensor.getDataType() == MNN.Halide_Type_Float
            kind, dtype = (
                (MNN.Halide_Type_Float, np.float32) if real else (MNN.Halide_Type_Int, np.int32)
            )
            host = MNN.Tensor(shape, kind, np.zeros(shape, dtype), MNN.Tensor_DimensionType_Caffe)
            tensor.copyToHostTensor(host)
            results[name] = np.array(host.getData(), dtype).reshape(shape)
        return results

    def kinds(self, **feeds):
        """Operators as they really run: "Convolution [ DT_INT8 ] "..."""
        self.feed(feeds)
        found = []

        def before(tensors, info):
            found.append(info.getType())
            return True

        self.interpreter.runSessionWithCallBackInfo(self.session, before, lambda t, i: True)
        return found


def onnx_outputs(path, feeds):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_equal(got, expected, tolerance):
    assert set(got) >= set(expected)
    for name, want in expected.items():
        assert got[name].shape == want.shape, name
        peak = np.abs(want).max()
        assert np.abs(got[name] - want).max() <= tolerance * max(peak, 1e-30), name


def convert(quench, source, target):
    result = quench("convert", source, "-o", target)
    assert result.returncode == 0, result.stderr
    return target


@pytest.mark.parametrize("case", ALL, ids=[c.name for c in ALL])
def test_operator(quench, case, tmp_path):
    """One operator: MNN computes what onnxruntime does, and the file reads back as the same."""
    onnx.save(case.model(), tmp_path / "m.onnx")
    feeds = case.feeds()
    expected = onnx_outputs(tmp_path / "m.onnx", feeds)
    convert(quench, tmp_path / "m.onnx", tmp_path / "m.mnn")
    assert_equal(Runtime(tmp_path / "m.mnn").run(**feeds), expected, 1e-5)
    convert(quench, tmp_path / "m.mnn", tmp_path / "back.onnx")
    assert_equal(onnx_outputs(tmp_path / "back.onnx", feeds), expected, 1e-5)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("einsum", [node("Einsum", ["x"], equation="ij->ji")], {"x": (2, 3)}), "Einsum"),
        (Case("cubic", [node("Resize", ["x", "", "s"], mode="cubic")], {"x": (1, 2, 4, 4)},
              {"s": np.array([1, 1, 2, 2], np.float32)}), "no MNN form of mode cubic"),
        (Case("shape", [node("Reshape", ["x", "y"])], {"x": (2, 3)}), "whose sizes are not fixed"),
        (Case("dilated", [node("MaxPool", ["x"], kernel_shape=[2, 2], dilations=[2, 2])],
              {"x": (1, 2, 8, 8)}), "no MNN form of dilated windows"),
        (Case("added", [node("ScatterND", ["x", "i", "u"], reduction="add")], {"x": (4, 6)},
              {"i": np.array([[1]]), "u": values(1, 6)}, 18), "no MNN form of reduction add"),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else None,
)  # fmt: skip
def test_what_has_no_form_is_named(quench, case, message, tmp_path):
    model = case.model()
    if case.name == "shape":  # that is an input
        model.graph.input.append(
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, (2,))
        )
    onnx.save(model, tmp_path / "m.onnx")
    result = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.mnn")
    assert result.returncode != 0
    assert message in result.stderr
    assert not (tmp_path / "m.mnn").exists()


def test_outputs_of_equal_contents(quench, tmp_path):
    """Outputs that are an input, or another output, under a second name."""
    nodes = [onnx.helper.make_node(op, [source], [target], name=target)
             for op, source, target in [("Relu", "x", "a"), ("Identity", "a", "b"),
                                        ("Identity", "x", "c")]]  # fmt: skip
    model = Case("names", nodes, {"x": (1, 3, 4, 5)}).model()
    for name in ("a", "b"):
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 4, 5))
        )
    onnx.save(model, tmp_path / "m.onnx")
    feeds = {"x": values(1, 3, 4, 5, seed=3)}
    convert(quench, tmp_path / "m.onnx", tmp_path / "m.mnn")
    got = Runtime(tmp_path / "m.mnn").run(**feeds)
    assert_equal(got, onnx_outputs(tmp_path / "m.onnx", feeds), 1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_network(quench, shared, name, tmp_path):
    net = network(name)
    sample = net.inputs(1)[:1].astype(np.float32)
    session = ort.InferenceSession(str(net.path), providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: sample}
    convert(quench, net.path, tmp_path / "m.mnn")
    # boxes of RFB-320_raw go through an exponential, of which MNN has an approximation
    tolerance = 5e-4 if name.startswith("rfb-raw") else 1e-4
    expected = onnx_outputs(net.path, feeds)
    assert_equal(Runtime(tmp_path / "m.mnn").run(**feeds), expected, tolerance)
    convert(quench, tmp_path / "m.mnn", tmp_path / "back.onnx")
    assert_equal(onnx_outputs(tmp_path / "back.onnx", feeds), expected, 1e-4)


def test_batch(quench, shared, tmp_path):
    """A symbolic batch stays free."""
    net = network("resnet20")
    feeds = {"input": net.inputs(3).astype(np.float32)}
    convert(quench, net.path, tmp_path / "m.mnn")
    assert_equal(Runtime(tmp_path / "m.mnn").run(**feeds), onnx_outputs(net.path, feeds), 1e-4)


def test_sizes_of_a_free_batch(quench, tmp_path):
    """Height and width in numbers, where the batch is open, are two axes of an ONNX Resize."""
    case = Case("sizes", [node("Resize", ["x", "", "", "s"], mode="nearest")],
                {"x": ("N", 3, 5, 4)}, {"s": i64(1, 3, 10, 12)})  # fmt: skip
    onnx.save(case.model(), tmp_path / "m.onnx")
    feeds = {"x": values(1, 3, 5, 4, seed=2)}
    convert(quench, tmp_path / "m.onnx", tmp_path / "m.mnn")
    convert(quench, tmp_path / "m.mnn", tmp_path / "back.onnx")
    back = onnx.load(tmp_path / "back.onnx")
    onnx.checker.check_model(back, full_check=True)
    assert {o.version for o in back.opset_import} == {18}  # which has the axes
    expected = onnx_outputs(tmp_path / "m.onnx", feeds)
    assert_equal(onnx_outputs(tmp_path / "back.onnx", feeds), expected, 1e-6)
    three = values(3, 3, 5, 4, seed=2)
    (got,) = onnx_outputs(tmp_path / "back.onnx", {"x": three}).values()
    assert got.shape == (3, 3, 10, 12) and np.array_equal(got[:1], *expected.values())


@pytest.mark.parametrize(
    "file", ["ultraface-rfb-320/RFB-320.mnn", "mlperf-resnet8-cifar10/resnet8_float.mnn",
             "mlperf-vww96/vww_96_float.mnn", "mlperf-kws/kws_dscnn.mnn"]
)  # fmt: skip
def test_mnn_to_onnx(quench, shared, file, tmp_path):
    source = shared / "models" / file
    convert(quench, source, tmp_path / "m.onnx")
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    feeds = {
        i.name: values(*[d if isinstance(d, int) else 1 for d in i.shape], seed=4)
        for i in session.get_inputs()
    }
    expected = Runtime(source).run(**feeds)
    assert_equal(onnx_outputs(tmp_path / "m.onnx", feeds), expected, 1e-4)
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)


# Float and int8 answers of MNN that must be the same, of 64 pictures.
INTEGER = {"resnet20": 60, "mobilenet": 57, "squeezenet": 54, "menet": 55}


@pytest.mark.parametrize("name", INTEGER)
def test_quantized_network(quench, shared, name, tmp_path):
    """Every convolution and product runs in int8, and the answers stay."""
    net = network(name)
    samples = net.inputs(80).astype(np.float32)
    np.save(tmp_path / "x.npy", samples[64:])
    result = quench("quantize", net.path, "-o", tmp_path / "q.mnn", "--data",
                    tmp_path / "x.npy", "--target", "mnn")  # fmt: skip
    assert result.returncode == 0, result.stderr
    session = ort.InferenceSession(str(net.path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()[0].name
    runtime = Runtime(tmp_path / "q.mnn")
    kinds = runtime.kinds(**{inputs: samples[:1]})
    heavy = [k for k in kinds if "Conv" in k or "MatMul" in k]
    assert len(heavy) >= 20
    assert all("DT_INT8" in k for k in heavy), heavy
    equal = 0
    for i in range(64):
        got = next(iter(runtime.run(**{inputs: samples[i : i + 1]}).values()))
        want = session.run(None, {inputs: samples[i : i + 1]})[0]
        equal += int(got.argmax() == want.argmax())
    assert equal >= INTEGER[name], equal
    assert os.path.getsize(tmp_path / "q.mnn") < 0.9 * os.path.getsize(net.path)


def test_quantized_detector(quench, shared, tmp_path):
    """RFB-320: all 52 convolutions in int8, boxes and scores point where float ones do."""
    net = network("rfb")
    samples = net.inputs(24).astype(np.float32)
    np.save(tmp_path / "x.npy", samples[8:])
    result = quench("quantize", net.path, "-o", tmp_path / "q.mnn", "--data", tmp_path / "x.npy",
                    "--target", "mnn")  # fmt: skip
    assert result.returncode == 0, result.stderr
    runtime = Runtime(tmp_path / "q.mnn")
    kinds = [k for k in runtime.kinds(input=samples[:1]) if "Conv" in k]
    assert len(kinds) == 52 and all("DT_INT8" in k for k in kinds)
    for i in range(4):
        feeds = {"input": samples[i : i + 1]}
        got = runtime.run(**feeds)
        for name, want in onnx_outputs(net.path, feeds).items():
            cosine = (got[name] * want).sum() / np.linalg.norm(got[name]) / np.linalg.norm(want)
            assert cosine > 0.9995, (name, cosine)
