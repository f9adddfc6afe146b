"""The speed suite runs where there is no GPU, says what it measured, and its stored runs compare by ratio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from i4d_bench import cli
from i4d_bench.results.environment import environment, hardware_name
from i4d_bench.speed import suite
from i4d_bench.speed.rows import PSNR

SUBSET = "eager and (decode or local_adaln)"


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """What `pytest --benchmark-only --benchmark-json` stores of a few benchmarks."""
    path = tmp_path_factory.mktemp("benchmarks") / "base.json"
    command = [sys.executable, "-m", "pytest", "tests/benchmarks", "--benchmark-only", "-k", SUBSET]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, f"--benchmark-json={path}"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def altered(stored: Path, change) -> Path:
    content = json.loads(stored.read_text())
    change(content)
    path = stored.with_name("new.json")
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def compare(monkeypatch, capsys):
    """compare(base, new, …) → exit code, what went to stdout, what went to stderr."""

    def run(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["i4d-bench", "compare", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capsys.readouterr())

    return run


def rows(content: dict) -> dict[str, dict]:
    return {b["extra_info"]["key"]: b["extra_info"] for b in content["benchmarks"]}


def row(content: dict, start: str) -> dict:
    return next(r for key, r in rows(content).items() if key.startswith(start))


def test_a_run_says_what_it_measured_and_on_what(stored):
    content = json.loads(stored.read_text())
    machine = content["machine_info"]
    assert machine["hardware"] == hardware_name() and machine["roof"]["copy_tb_s"] > 0
    assert {k: machine[k] for k in ("versions", "commit")}.items() <= environment().items()
    assert {key.split("/")[0] for key in rows(content)} == {"kernel", "fusion", "frame"}
    frame, kernel = row(content, "frame/local_adaln/eager/b1/n"), row(content, "kernel/decode/eager/b1/n")
    assert frame["fps"] == pytest.approx(1000 / frame["host_ms"]) and frame["psnr"] >= PSNR
    assert 0 < kernel["of_roof"] < 1.5 and kernel["p5"] <= kernel["ms"] <= kernel["p95"]


def test_a_run_is_no_slower_than_itself(stored, compare):
    code, out, err = compare(stored, stored)
    assert code == 0 and err == "" and "frame/local_adaln" in out and "1.000" in out


def test_a_slower_row_is_named(stored, compare):
    slower = altered(stored, lambda c: row(c, "frame/").update(host_ms=1.2 * row(c, "frame/")["host_ms"]))
    code, _, err = compare(stored, slower)
    assert code == 1 and "1 of " in err and "frame/local_adaln" in err and "1.20×" in err and "kernel" not in err
    assert compare(stored, slower, "--threshold", "1.3")[0] == 0


def test_a_lower_clock_is_not_a_slower_kernel(stored, compare):
    def clock(content, roof=1.0):
        for r in rows(content).values():
            r["ms"] *= 1.2
            r["of_roof"] = r["of_roof"] and r["of_roof"] / 1.2 / roof

    err = compare(stored, altered(stored, clock))[2]
    assert "kernel/decode/" in err and "kernel/decode+backward/" in err
    err = compare(stored, altered(stored, lambda c: clock(c, roof=1 / 1.2)))[2]
    assert "kernel/decode/" not in err and "kernel/decode+backward/" in err


def test_rows_of_one_run_alone_are_named(stored, compare):
    fewer = altered(stored, lambda c: c["benchmarks"].pop())
    gone = (rows(json.loads(stored.read_text())).keys() - rows(json.loads(fewer.read_text())).keys()).pop()
    assert f"missing: {gone}" in compare(stored, fewer)[1]
    assert f"new: {gone}" in compare(fewer, stored)[1]


@pytest.mark.parametrize("what", ["hardware", "gpu"])
def test_other_hardware_is_refused(stored, compare, what):
    other = altered(stored, lambda c: c["machine_info"].update({what: "abacus"}))
    code, _, err = compare(stored, other)
    assert code == 2 and "different hardware" in err and "abacus" in err and err.count("\n") == 1


def test_other_files_are_refused(stored, compare, tmp_path):
    for text in ("{", "[]", '{"machine_info": {}, "benchmarks": []}', '{"rows": {}}'):
        (tmp_path / "x.json").write_text(text)
        code, _, err = compare(stored, tmp_path / "x.json")
        assert code == 2 and "x.json" in err and err.count("\n") == 1
    assert compare(stored, tmp_path / "none.json")[0] == 2
    assert compare(stored, altered(stored, lambda c: c["machine_info"].update(schema=0)))[0] == 2


def test_speed_json_compares_too(tmp_path, compare):
    key, good = "frame/static/eager/b1/n8/r8", {"ms": 1.0, "host_ms": 2.0, "status": "ok"}
    kernel = {"ms": 1.0, "host_ms": 1.0, "bytes": 1000, "flops": 1000, "status": "ok"}
    run = {
        "schema": suite.SCHEMA,
        "roof": {"copy_tb_s": 1.0, "matmul_tflop_s": 1.0},
        "environment": environment(),
    }
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, factor, status in zip(paths, (1.0, 1.5), ("ok", "wrong"), strict=True):
        wrong = {"driver/resnet18/eager/b1": good | {"status": status}}
        slow = {
            k: r | {"ms": factor, "host_ms": 2 * factor}
            for k, r in {key: good, "kernel/decode/eager/b1/n8": kernel}.items()
        }
        path.write_text(json.dumps(run | {"rows": slow | wrong}))
    code, out, err = compare(*paths)
    assert (
        code == 1 and "2 of 2" in err and key in err and "1.50×" in err and "missing: driver/resnet18/eager/b1" in out
    )
