"""The command line itself: every option is explained, help costs no torch, JSON is JSON, a foreign package is named."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from helpers import ROOT

from i4d_bench import __version__, cli, siblings
from i4d_bench.errors import UserError
from i4d_bench.metrics.cards import CARDS

COMMANDS = {name: spec.target for name, spec in cli.app._subcommands.items()}
HEAVY = ("torch", "pandas", "matplotlib", "numba", "numpy")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_explained(name):
    options = typing.get_type_hints(COMMANDS[name], include_extras=True)
    for option in inspect.signature(COMMANDS[name]).parameters:
        said = [note.help for note in getattr(options[option], "__metadata__", ()) if getattr(note, "help", None)]
        assert said and len(said[0]) > 8, f"i4d-bench {name}: {option} has no help"
    assert COMMANDS[name].__doc__


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["compare", "--help"], ["--version"]])
def test_help_costs_no_heavy_import(arguments):
    code = (
        "import sys\nfrom i4d_bench import cli\n"
        f"sys.argv = ['i4d-bench', *{arguments}]\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('loaded:', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []" and len(done.stdout.splitlines()) > 1


def run(monkeypatch, capsys, *arguments: str) -> tuple[str | int | None, str, str]:
    """Exit code, standard output, standard error of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["i4d-bench", *arguments])
    code = None
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_the_version_is_the_packages(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version")[1] == f"i4d-bench {__version__}\n"


def test_an_ablation_is_run_by_its_name(monkeypatch, capsys):
    from i4d_bench.jobs import run as job

    given = []
    monkeypatch.setattr(job, "run", lambda experiment, *_: given.append(experiment))
    assert run(monkeypatch, capsys, "run", "--preset", "smoke", "--ablation", "blendshapes")[0] is None
    assert given[0].ablation == "blendshapes" and "local_blendshapes@blendshapes=50" in given[0].designs


def test_real_video_is_mixed_and_started_from_as_the_command_says(monkeypatch, capsys):
    from i4d_bench.config.experiment import from_dict
    from i4d_bench.jobs import run as job

    given = []
    monkeypatch.setattr(job, "run", lambda experiment, *_: given.append(experiment))
    options = "--data a --data b --world ict --hold-out ann 3 --init runs/x --init runs/y".split()
    assert run(monkeypatch, capsys, "run", "--preset", "smoke", *options)[0] is None
    assert run(monkeypatch, capsys, "run", "--preset", "smoke", "--world", "ict")[0] is None
    mixed, rendered = (e.world for e in given)
    assert (mixed.kind, mixed.path, mixed.further, mixed.beside) == ("clips", "a", ("b",), "ict")
    assert mixed.hold_out == ("ann", "3") and given[0].init == ("runs/x", "runs/y")
    assert (rendered.kind, rendered.path, rendered.beside) == ("ict", None, None)
    assert from_dict(json.loads(json.dumps(given[0].to_dict()))) == given[0]


@pytest.mark.parametrize("what", ["designs", "ablations", "presets", "metrics"])
def test_lists_are_json_too(monkeypatch, capsys, what):
    listed = json.loads(run(monkeypatch, capsys, "list", what, "--json")[1])
    lines = run(monkeypatch, capsys, "list", what)[1].splitlines()
    assert [entry["name"] for entry in listed] == [line.split()[0] for line in lines]
    assert all(entry["text"] in line for entry, line in zip(listed, lines, strict=True))


def test_a_metric_is_listed_with_all_that_its_card_holds(monkeypatch, capsys):
    listed = {entry["name"]: entry for entry in json.loads(run(monkeypatch, capsys, "list", "metrics", "--json")[1])}
    for name, card in CARDS.items():
        entry = listed[name]
        assert (entry["unit"], entry["network"], entry["worst"]) == (card.unit, card.network, card.worst)
        assert all(told in entry["text"] for told in (card.definition, card.unit, card.network))
    assert "unit: px" in listed["akd"]["text"] and "worst value: 64" in listed["akd"]["text"]
    assert "worst" not in listed["psnr"]["text"]


def test_assets_as_json_say_what_is_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("I4D_ASSETS", str(tmp_path))
    monkeypatch.setenv("I4D_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mediapipe").mkdir()
    (tmp_path / "mediapipe" / "face_landmarker.task").touch()
    code, out, _ = run(monkeypatch, capsys, "assets", "--json")
    content = json.loads(out)
    status = {asset["path"]: asset["status"] for asset in content["assets"]}
    assert code == 0 and content["folders"][0] == str(tmp_path)
    assert status["mediapipe/face_landmarker.task"] == "broken"
    assert status["ict/ict_facekit_full_f16.npz"] == "missing"


def test_the_doctor_as_json_prints_nothing_else(monkeypatch, capsys):
    from i4d_bench import doctor

    def talks() -> str:
        print("building …")
        return "fine"

    def cannot() -> str:
        raise UserError("no such thing here")

    monkeypatch.setattr(doctor, "CHECKS", (("a", talks, True), ("b", cannot, False)))
    code, out, err = run(monkeypatch, capsys, "doctor", "--json")
    content = json.loads(out)
    assert code == 0 and "building" in err
    assert [c["status"] for c in content["checks"]] == ["ok", "no"] and content["environment"]["hardware"]
    monkeypatch.setattr(doctor, "CHECKS", (("b", cannot, True),))
    assert run(monkeypatch, capsys, "doctor")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--preset", "smoke", "--designs", "local_adalm"], "local_adaln"),
        (["run", "--preset", "smokey"], "smoke"),
        (["run", "--preset", "smoke", "--set", "train.lrr=1"], "train.lrr"),
        (["run", "--preset", "smoke", "--set", "overrides.local_adaln.hiden=3"], "hidden"),
        (["run", "--preset", "smoke", "--set", "train.lr=fast"], "float"),
        (["run", "--preset", "smoke", "--data", "nowhere"], "nowhere"),
        (["run", "--preset", "smoke", "--driver", "orcale"], "sliders, deep"),
        (["run", "--preset", "smoke", "--seeds", "3-1"], "0-3 or 0,2,5"),
        (["run", "--slurm", "partition=gpu"], "name the preset"),
        (["run", "--preset", "smoke", "--slurm", "partition"], "KEY=VALUE"),
        (["run", "--preset", "smoke", "--driver", "external"], "./encoder.onnx"),
        (["run", "--preset", "smoke", "--driver", "nowhere/encoder.onnx"], "there is no encoder nowhere"),
        (["run", "--preset", "smoke", "--driver", "./encoder.pth"], "TorchScript (.pt, .ts)"),
        (["run", "--preset", "smoke", "--reports", "/proc/reports"], "/proc/reports"),
        (["run", "--preset", "smoke", "--supervision", "lifted"], "go with --teacher"),
        (["run", "--preset", "smoke", "--teacher", "nowhere"], "no store of teacher pairs"),
        (["run", "--preset", "smoke", "--designs", str(ROOT / "README.md")], "README.md is no file of a design"),
        (["speed", "--designs", str(ROOT / "README.md")], "README.md is no file of a design"),
        (["speed", "--avatars", "nope.ply"], "there is no file nope.ply"),
        (["speed", "--avatars", "nope.splats"], "there is no file nope.splats"),
        (["validate", "nope.zip"], "there is no file nope.zip"),
        (["report", "nowhere"], "nowhere"),
        (["data", "check", "nowhere"], "nowhere"),
        (["teacher", "make", "--animator", "liveportrait", "--out", "pairs"], "--sources"),
        (["teacher", "make", "--animator", "warp", "--out", "pairs"], "--sources"),
        (["teacher", "make", "--animator", "world", "--spoil", "blur=1", "--out", "pairs"], "swim, drift"),
        (["animate", "--source", "no.png", "--driving", "no.mp4", "--run", "nowhere", "--out", "x.mp4"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2 and said in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_pairs_of_rendered_heads_are_made_and_checked(monkeypatch, capsys, tmp_path):
    store = str(tmp_path / "pairs")
    made = [
        "teacher",
        "make",
        "--animator",
        "world",
        "--preset",
        "smoke",
        "--pairs",
        "1",
        "--spoil",
        "swim=1",
        "--out",
        store,
    ]
    assert run(monkeypatch, capsys, *made)[0] == 0
    code, out, _ = run(monkeypatch, capsys, "data", "check", store, "--complete")
    assert code == 0 and " good, 0 bad, 0 failed" in out
    assert "0 are to be made" in run(monkeypatch, capsys, *made)[1]


def test_a_mistake_ends_the_process_with_its_code(tmp_path):
    command = [sys.executable, "-m", "i4d_bench.cli", "list", "designs", "--designs", "none.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 2 and "none.py" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_output_that_nobody_reads_on_is_no_error():
    """`i4d-bench list metrics | head -1`"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "i4d_bench.cli", "list", "metrics"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.parametrize("name", ["kernels", "variants"])
def test_a_foreign_package_of_our_name_is_one_sentence(tmp_path, name):
    """Hugging Face has a package `kernels`."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text('"""Somebody else\'s."""\n')
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "i4d_bench.cli", "list", "designs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert str(tmp_path / name / "__init__.py") in done.stderr and "not our package" in done.stderr


def test_a_foreign_package_installed_over_ours_is_seen(tmp_path, monkeypatch):
    """One environment, one folder: the later installation wrote over the earlier one's files."""
    for name in ("i4d_bench", "variants", "kernels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('"""Of i4d_bench."""\n')
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(siblings, "__file__", str(tmp_path / "i4d_bench" / "siblings.py"))
    siblings.check()
    (tmp_path / "kernels" / "__init__.py").write_text('"""Kernels from the hub."""\n')
    with pytest.raises(UserError, match="kernels"):
        siblings.check()


def test_our_own_packages_are_found():
    siblings.check()
    assert Path(cli.__file__).parents[1] == ROOT


def test_a_gpu_that_a_kernel_does_not_fit_is_one_sentence(monkeypatch, capsys):
    from kernels import Unsupported

    def refused():
        raise Unsupported("this GPU is too small")

    monkeypatch.setattr(cli, "_run", refused)
    code, _, err = run(monkeypatch, capsys)
    assert code == 2 and err == "i4d-bench: this GPU is too small\n"


def test_the_doctor_says_which_kernel_does_not_work_on_this_gpu(monkeypatch):
    import torch

    from i4d_bench import doctor
    from kernels import check
    from kernels.fused import launch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(launch, "card", lambda: launch.Card(89, 128, 99 * 1024))
    monkeypatch.setattr(check, "check", lambda: {"fp32": [], "fp16": []})
    assert doctor._kernels() == "all run and are right in fp32, fp16 on sm_89, 99 KB of shared memory a program"
    monkeypatch.setattr(check, "check", lambda: {"fp32": ["decode: too large"], "fp16": []})
    with pytest.raises(UserError, match=r"in fp32 decode: too large \(all work in fp16\)"):
        doctor._kernels()
