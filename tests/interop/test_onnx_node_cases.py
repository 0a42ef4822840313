"""ONNX's own backend node tests: no wrong answers, no crashes, and nothing that passed may be lost."""

import os
import pathlib

import node_cases
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSES = pathlib.Path(__file__).with_name("node_cases_pass.txt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    tool = binary.parent / "tests" / "node_cases"
    if not tool.exists():
        pytest.skip(f"{tool} is not built (QN_TESTS=ON)")
    return node_cases.judge(tool, tmp_path_factory.mktemp("cases"), node_cases.collect())


def test_no_case_is_wrong_or_crashes(results):
    bad = [r for r in results if r.outcome in (node_cases.WRONG, node_cases.CRASH)]
    assert not bad, "\n".join(f"{r.name}: {r.outcome}: {r.message}" for r in bad)


def test_what_passed_still_passes(results):
    now = {r.name: r for r in results}
    expected = PASSES.read_text().split()
    assert len(expected) > 500
    lost = [n for n in expected if now[n].outcome not in (node_cases.PASSED, node_cases.CONSTANT)]
    assert not lost, "\n".join(f"{n}: {now[n].outcome}: {now[n].message}" for n in lost)


def test_refusals_name_the_reason(results):
    for r in results:
        if r.outcome in (node_cases.UNSUPPORTED, node_cases.REFUSED):
            assert len(r.message) > 10, r.name
