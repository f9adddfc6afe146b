"""The speed suite runs where there is no GPU, says what it measured, and its stored runs compare by ratio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import ROOT

from i4d_bench import cli
from i4d_bench.results.environment import environment, hardware_name
from i4d_bench.speed import suite
from i4d_bench.speed.rows import PSNR

SUBSET = "eager and (decode or local_adaln)"


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """What `pytest --benchmark-only --benchmark-json` stores of a few benchmarks: once for all of xdist's workers."""
    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "benchmarks.json"
    command = [sys.executable, "-m", "pytest", "tests/benchmarks", "--benchmark-only", "-k", SUBSET]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            out = path.with_suffix(".part")
            done = subprocess.run(
                [*command, f"--benchmark-json={out}"], cwd=ROOT, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            out.rename(path)
    return path


def altered(stored: Path, change, name: str = "new") -> Path:
    content = json.loads(stored.read_text())
    change(content)
    path = stored.with_name(f"{name}-{os.getpid()}.json")  # workers share the folder
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def calm(stored) -> Path:
    """The same without spread: on a busy machine a row's is larger than what the tests make of it."""
    return altered(stored, lambda c: [r.update(p5=r["ms"], p95=r["ms"]) for r in rows(c).values()], "calm")


@pytest.fixture
def compare(monkeypatch, capsys):
    """compare(base, new, …) → exit code, what went to stdout, what went to stderr."""

    def run(*args) -> tuple[str | int | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["i4d-bench", "compare", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

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


def test_on_a_cpu_a_slower_kernel_fails_and_a_slower_frame_is_context(calm, compare):
    def slower(start: str, by: float):
        return altered(calm, lambda c: row(c, start).update({k: by * row(c, start)[k] for k in SPREAD}))

    code, _, err = compare(calm, slower("kernel/decode+backward/", 9.0))
    assert code == 1 and "1 of " in err and "kernel/decode+backward/" in err and "9.00×" in err and "frame" not in err
    assert compare(calm, slower("kernel/decode+backward/", 9.0), "--threshold", "9.5")[0] == 0
    code, out, _ = compare(calm, slower("frame/", 9.0))
    assert code == 0 and "9.000" in out


def test_a_row_that_vanished_is_named_in_json_too(stored, compare):
    fewer = altered(stored, lambda c: c["benchmarks"].pop())
    code, out, _ = compare(stored, fewer, "--json")
    content = json.loads(out)
    assert (
        code == 1 and len(content["failed"]) == 1 and len(content["rows"]) == len(rows(json.loads(stored.read_text())))
    )
    assert {r["verdict"] for r in content["rows"]} == {"", "vanished"}


SPREAD = ("ms", "p5", "p95", "host_ms")
KERNEL, GRAPH, EAGER = "kernel/decode/triton/b1/n8", "frame/static/triton+graph/b1/n8/r8", "frame/static/eager/b1/n8/r8"


def timed(ms: float, spread: float = 0.02, host: float | None = None, **more) -> dict:
    times = {"ms": ms, "p5": ms * (1 - spread), "p95": ms * (1 + spread), "host_ms": host or ms}
    return {"status": "ok", **times, **more}


def speed_json(path: Path, rows: dict[str, dict], hardware: str = "h100") -> Path:
    """What `i4d-bench speed` stores."""
    about = {"schema": suite.SCHEMA, "roof": {"copy_tb_s": 1.0, "matmul_tflop_s": 1.0}}
    path.write_text(json.dumps(about | {"environment": environment() | {"hardware": hardware}, "rows": rows}))
    return path


@pytest.fixture
def verdicts(tmp_path, compare):
    """verdicts(base rows, new rows) → exit code and each row's verdict, on a GPU of which other rows are as before."""
    other = {"kernel/other/triton/b1": timed(1.0)}

    def run(base: dict, new: dict, hardware: str = "h100") -> tuple[int, dict[str, str]]:
        files = (speed_json(tmp_path / f"{n}.json", other | r, hardware) for n, r in (("base", base), ("new", new)))
        code, out, _ = compare(*files, "--json")
        return code, {r["key"]: r["verdict"] for r in json.loads(out)["rows"] if r["key"] not in other}

    return run


def test_rows_that_the_device_bounds_decide_and_the_host_is_context(verdicts):
    for key, fails in ((KERNEL, True), (GRAPH, True), (EAGER, False)):
        assert verdicts({key: timed(1.0)}, {key: timed(1.3)}) == (fails, {key: "slower"})
    assert verdicts({GRAPH: timed(1.0)}, {GRAPH: timed(1.0, host=3.0)}) == (0, {GRAPH: ""}), "a busy host"


def test_a_ratio_inside_the_spread_of_the_rounds_is_none(verdicts):
    """Its median must lie outside the other's rounds, both ways."""
    for spread_before, spread_now in ((0.5, 0.02), (0.02, 0.5)):
        before, now = timed(1.0, spread_before), timed(1.3, spread_now)
        assert verdicts({KERNEL: before}, {KERNEL: now}) == (0, {KERNEL: ""})
    assert verdicts({KERNEL: timed(1.0, 0.2)}, {KERNEL: timed(1.3, 0.2)})[0] == 1
    assert verdicts({KERNEL: timed(1.3)}, {KERNEL: timed(1.0)}) == (0, {KERNEL: "faster"})


@pytest.mark.parametrize("key", [KERNEL, GRAPH, EAGER])
def test_a_row_that_is_lost_fails_whichever_it_is(verdicts, key):
    good, wrong, failed = timed(1.0), timed(0.5) | {"status": "wrong"}, {"status": "failed: out of memory"}
    assert verdicts({key: good}, {key: wrong}) == (1, {key: "wrong"})
    assert verdicts({key: failed}, {key: wrong}) == (1, {key: "wrong"})
    assert verdicts({}, {key: wrong}) == (1, {key: "wrong"})
    assert verdicts({key: good}, {key: failed}) == (1, {key: "no time"})
    assert verdicts({key: good}, {key: good | {"ms": None, "host_ms": None}}) == (1, {key: "no time"})
    assert verdicts({key: good}, {}) == (1, {key: "vanished"})


def test_a_row_that_never_had_a_time_is_no_loss(verdicts):
    bad = timed(1.0) | {"status": "wrong"}
    assert verdicts({KERNEL: bad}, {KERNEL: bad}) == (0, {})
    assert verdicts({KERNEL: bad}, {KERNEL: timed(9.0)}) == (0, {KERNEL: "mended"})
    assert verdicts({}, {KERNEL: timed(9.0)}) == (0, {KERNEL: "new"})


def test_a_lower_clock_is_not_a_slower_kernel(tmp_path, compare):
    """Where the roof fell as much as the kernel, in the same run."""
    least = {"bytes": 10**9, "flops": 1}
    base = speed_json(tmp_path / "base.json", {KERNEL: timed(1.0, **least)})
    new = speed_json(tmp_path / "new.json", {KERNEL: timed(1.2, **least)})
    assert compare(base, new)[0] == 1
    content = json.loads(new.read_text())
    content["roof"]["copy_tb_s"] /= 1.2
    new.write_text(json.dumps(content))
    assert compare(base, new)[0] == 0


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
    assert compare(speed_json(tmp_path / "a.json", {}), speed_json(tmp_path / "b.json", {}))[0] == 2
    assert compare(stored, speed_json(tmp_path / "a.json", {KERNEL: timed(1.0)}))[0] == 2
