"""`i4d-bench speed`: what it stores, that it goes on where it stopped, and that wrong or failed rows never count."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import ROOT

import variants
from i4d_bench.config import presets
from i4d_bench.data.video.landmarker import Landmarker
from i4d_bench.heads.worlds import exported_head
from i4d_bench.jobs.speed import avatars, main
from i4d_bench.play import splats
from i4d_bench.play.ply import write_ply
from i4d_bench.render import render
from i4d_bench.report import build_report
from i4d_bench.report.speed_tables import frames_table, splats_table
from i4d_bench.speed import protocol, rig, splatted, suite
from i4d_bench.speed.keys import Key
from i4d_bench.speed.plan import Plan, in_every_mode
from i4d_bench.speed.rows import PSNR, Kernel, Stage, Tracker, psnr
from i4d_bench.speed.splatted import Gradients, Trained
from i4d_bench.speed.tracker import tracked_pictures, tracker
from i4d_bench.types import Gaussians, UserError
from kernels.cases import case
from kernels.contract import Case

CPU = torch.device("cpu")
PLAN = Plan(
    300, 32, counts=(500,), resolutions=(16,), batches=(2,), tokens=(4,), modes=("eager",), frames=2,
    designs=("local_adaln", "global_cross_attention"),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(few_kernels, tmp_path_factory):
    path = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig, "DRIVER_SIZE", 64)
        suite.run(path, CPU, PLAN)
    build_report(path)
    return path


@pytest.fixture(autouse=True, scope="module")
def few_kernels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "CASES", [case("local_fusion"), case("flame_skinning")])
        patch.setattr(protocol, "roof", functools.cache(protocol.roof))  # a machine's is measured once
        yield


def test_every_row_of_the_plan_is_stored_under_its_key(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["speed"]) == {row.key for row in suite.rows(PLAN)}
    for key in ("frame/local_adaln/eager/b1/n300/r32", "fusion/global_cross_attention/eager/b1/n300/t4",
                "raster/static/eager/b1/n500/r32", "driver/resnet18/eager/b2", "kernel/flame_skinning/eager/b32",
                "kernel/local_fusion+backward/eager/b1/n300"):  # fmt: skip
        row = summary["speed"][key]
        assert row["status"] == "ok" and 0 < row["p5"] <= row["ms"] <= row["p95"] and row["fps"] > 0


def test_rasterisers_stand_beside_each_other():
    """On a GPU: gsplat as it is and in a graph, ours as it is and in a graph, at every size; and both with gradients."""
    keys = [row.key for row in suite.rows(replace(PLAN, modes=rig.MODES))]
    for size in ("b1/n300/r32", "b1/n500/r32", "b1/n300/r16", "b2/n300/r32"):
        assert [k.split("/")[2] for k in keys if k.startswith("raster/") and k.endswith(size)] == list(rig.SPLATS)
    trained = [k for k in keys if k.startswith("raster+backward/")]
    assert trained == [f"raster+backward/static/triton/b{b}/n{n}/r{r}" for b, n, r in PLAN.trained]
    row = lambda ms: {"ms": ms, "p5": ms, "p95": ms, "status": "ok"}  # noqa: E731
    theirs, ours, wrong = row(3.0), row(2.0), row(1.0) | {"status": "wrong"}
    found = {Key.parse(trained[0]): ours, Key.parse(trained[0].replace("triton", "gsplat")): theirs}
    found |= {
        Key.parse("raster/static/gsplat+graph/b1/n9/r8"): theirs,
        Key.parse("raster/static/triton+graph/b1/n9/r8"): wrong,
    }
    table = splats_table(found)
    assert [*map(str, table["triton over gsplat"])] == ["1.5×", ""] and table["drawn"].tolist() == [
        "with gradients",
        "picture",
    ]
    assert "triton+graph over gsplat+graph" not in table, "a wrong picture is faster than nothing"


def test_trained_avatars_are_drawn_beside_the_untrained_one(tmp_path):
    """From a .ply and from what a run keeps for its page: at every resolution, in every way that runs here."""
    r = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(1, 40, *shape, generator=r)  # noqa: E731
    cloud = Gaussians(0.4 * draw(3) - 0.2, draw(4), 0.01 + 0.03 * draw(3), draw(), draw(3))
    splats.save(tmp_path / "a.splats", splats.rest(cloud))
    write_ply(tmp_path / "b.ply", cloud)
    files = (tmp_path / "a.splats", tmp_path / "b.ply")
    what = replace(PLAN, designs=("local_adaln",), avatars=avatars(files))
    own = [row for row in suite.rows(what) if isinstance(row, Trained)]
    assert [row.key for row in own] == [f"raster/{a}/eager/b1/n40/r{r}" for a in "ab" for r in (32, 16)]
    for row in own:
        assert row.measure(what, CPU)["status"] == "ok"
    a, b = (rig.raster(rig.view(32, 1, CPU), "eager", cloud)(trained) for trained in what.avatars.values())
    assert psnr(a, b) > 40 and a.max() > 0.1, "the same head in the same place"
    stored = {row.key: {"ms": 1.0, "p5": 1.0, "p95": 1.0, "status": "ok"} for row in own}
    found = {Key.parse(k): row for k, row in stored.items()}
    assert splats_table(found)["avatar"].tolist() == ["a", "a", "b", "b"]
    fast = [row.key for row in suite.rows(replace(what, modes=rig.MODES)) if "/a/" in row.key]
    assert [k.split("/")[2] for k in fast if k.endswith("r32")] == list(rig.SPLATS)
    assert f"raster+backward/a/triton/b{PLAN.trained[0][0]}/n40/r{PLAN.trained[0][2]}" in fast


def test_another_avatar_of_the_same_name_is_measured_again(tmp_path, monkeypatch):
    cloud = lambda: Gaussians(*(torch.rand(1, 9, k) for k in (3, 4, 3)), torch.rand(1, 9), torch.rand(1, 9, 3))  # noqa: E731
    monkeypatch.setattr(suite, "rows", lambda what: [Trained("mine", "eager", 9, 16)])
    monkeypatch.setattr(suite.protocol, "roof", lambda device: {})
    first = suite.run(tmp_path, CPU, replace(PLAN, avatars={"mine": cloud()})).rows
    assert len(first) == 1 and suite.run(tmp_path, CPU, PLAN).rows == first
    assert suite.run(tmp_path, CPU, replace(PLAN, avatars={"mine": cloud()})).rows != first


def test_an_avatar_that_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.ply"):
        main(tmp_path / "out", {"avatars": (tmp_path / "none.ply",)}, True)
    cloud = Gaussians(*(torch.rand(1, 2, k) for k in (3, 4, 3)), torch.rand(1, 2), torch.rand(1, 2, 3))
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write_ply(tmp_path / folder / "one.ply", cloud)
    with pytest.raises(UserError, match=r"one\.ply: rows are named by the avatars' files"):
        main(tmp_path / "out", {"avatars": tuple(tmp_path / f / "one.ply" for f in "ab")}, True)


def test_what_torch_compiles_for_gpus_alone_is_no_failed_row_on_a_cpu(tmp_path):
    flex, speed = (
        Kernel("cross_attention", "flex", 1, 300),
        suite.Speed(tmp_path, CPU, (1, 300, 32), roof={"copy_tb_s": 1.0}),
    )
    speed.measure(flex, PLAN)
    assert speed.rows[flex.key]["status"].startswith("cannot run here: FlexAttention is timed on a CUDA GPU alone")


def test_docs_and_command_name_the_same_modes():
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    listed = text[text.index("- `eager`") : text.index("A row whose output")]
    assert re.findall(r"^- `([a-z+]+)`:", listed, re.M) == [*rig.MODES, rig.AHEAD]
    keys = [row.key for row in suite.rows(replace(PLAN, modes=("triton+graph",)))]
    assert {k.split("/")[1] for k in keys if rig.AHEAD in k} == {"local_adaln", "global_cross_attention"}


def test_csv_files_hold_numbers_and_what_does_not_count_is_empty(tmp_path):
    times = {"ms": 2.0, "p5": 1.5, "p95": 4.0, "host_ms": 2.5, "fps": 400.0, "psnr": 60.0}
    rows = {f"frame/static/{m}/b1/n9/r32": times | {"status": "ok"} for m in ("eager", "compiled")}
    rows |= {
        "frame/static/triton/b1/n9/r32": times | {"status": "wrong"},
        "fusion/static/eager/b1/n9": {"status": "failed: why"},
    }
    rows |= {f"raster/mine/{m}/b1/n9/r32": times | {"status": "ok"} for m in ("eager", "triton")}
    roof = dict.fromkeys(("copy_tb_s", "matmul_tflop_s", "empty_ms", "empty_host_ms"), 1.0)
    suite.Speed(tmp_path, CPU, (1, 9, 32), {}, rows, roof).save()
    build_report(tmp_path)
    frames, splats = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("frames", "splats"))
    numbers = ["device (ms)", "device (ms)_p5", "device (ms)_p95", "host (ms)", "frames per second", "over eager"]
    assert frames[numbers].iloc[:2].to_numpy().tolist() == [[2, 1.5, 4, 2.5, 400, 1]] * 2
    assert (
        frames[numbers].iloc[2].isna().all() and "2.000 (1.500 to 4.000) wrong" in (tmp_path / "speed.md").read_text()
    )
    assert splats[["drawn", "avatar", "eager (ms)_p95", "triton over eager"]].iloc[0].tolist() == [
        "picture",
        "mine",
        4,
        1,
    ]
    assert not any("Unnamed" in c for c in (*frames, *splats))


def test_avatars_of_ones_own_are_printed(tmp_path, monkeypatch, capsys):
    cloud = Gaussians(*(torch.rand(1, 9, k) for k in (3, 4, 3)), torch.rand(1, 9), torch.rand(1, 9, 3))
    write_ply(tmp_path / "mine.ply", cloud)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(suite, "CASES", [])
    row = {"ms": 1.0, "p5": 1.0, "p95": 1.0, "host_ms": 1.0, "fps": 1000.0, "status": "ok"}
    for kind in (Stage, Trained):
        monkeypatch.setattr(kind, "measure", lambda *_: row)
    given = {"designs": ("local_adaln",), "gaussians": 300, "resolution": 32, "avatars": (tmp_path / "mine.ply",)}
    assert main(tmp_path, given, True) == 0
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if "mine" in line)
    assert line[:5] == ["picture", "mine", "1", "9", "32"] and "1.000" in line


def test_tables_and_figures_come_from_the_stored_rows_alone(folder):
    text = (folder / "speed.md").read_text()
    assert "local_fusion" in text and "Whole frames" in text
    for name in ("stages", "over_gaussians"):
        assert (folder / f"{name}.png").stat().st_size > 5000 and f"({name}.png)" in text


def test_a_second_run_measures_only_what_is_missing(folder, monkeypatch):
    content = json.loads((folder / "speed.json").read_text())
    gone = "fusion/local_adaln/eager/b2/n300"
    del content["rows"][gone]
    (folder / "speed.json").write_text(json.dumps(content))
    measured = []
    any_row = content["rows"]["driver/resnet18/eager/b1"]
    for kind in (Kernel, Stage):
        monkeypatch.setattr(kind, "measure", lambda row, *_: measured.append(row.key) or any_row)
    suite.run(folder, CPU, PLAN)
    assert measured == [gone]


def test_what_was_timed_in_turn_with_a_row_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(suite.protocol, "roof", lambda device: {})
    row, beside = Gradients(2, 30, 16), "raster+backward/static/gsplat/b2/n30/r16"
    monkeypatch.setattr(splatted, "render", lambda *given, depth: render(*given[:3], "cpu", depth=depth))
    speed = suite.Speed(tmp_path, CPU, (1, 300, 32))
    speed.measure(row, PLAN)
    assert set(json.loads((tmp_path / "speed.json").read_text())["rows"]) == {row.key, beside}
    assert {*speed.rows[row.key]} == {*speed.rows[beside], "error"} and speed.rows[row.key]["status"] == "ok"


def test_rows_of_other_code_are_not_kept(folder):
    content = json.loads((folder / "speed.json").read_text())
    content["environment"]["source"] = "0123456789ab"
    (folder / "speed.json").write_text(json.dumps(content))
    assert not suite.Speed(folder, CPU, (1, 300, 32)).rows


def test_a_report_that_is_cut_short_is_named_and_kept(tmp_path):
    (path := tmp_path / "speed.json").write_text('{"schema": ')
    with pytest.raises(UserError, match=r"speed\.json is damaged"):
        suite.Speed(tmp_path, CPU, (1, 300, 32))
    assert path.read_text() == '{"schema": '


def test_a_design_that_was_changed_is_measured_again(tmp_path):
    now = suite.described(("local_adaln", "static@native"))
    rows = {
        "fusion/local_adaln/eager/b1/n9": {},
        "fusion/local_adaln@hidden=8/eager/b1/n9": {},
        "raster/static/eager/b1/n9": {},
    }
    before = suite.Speed(tmp_path, CPU, (1, 9, 9), now, rows, {"copy_tb_s": 1.0})
    before.save()
    assert suite.Speed(tmp_path, CPU, (1, 9, 9), now).rows == rows
    changed = now | {"local_adaln": now["local_adaln"] | {"source": "another"}}
    assert list(suite.Speed(tmp_path, CPU, (1, 9, 9), changed).rows) == ["raster/static/eager/b1/n9"]


def test_rows_of_a_changed_design_go_also_where_others_alone_are_measured(tmp_path):
    """They would stand under a commit at which they were not measured. Of a design that is not here nobody knows: its rows stay."""
    now = suite.described(("local_adaln", "static"))
    about = {"local_adaln": now["local_adaln"] | {"source": "older"}, "theirs": now["static"], "static": now["static"]}
    rows = {f"fusion/{name}/eager/b1/n9": {} for name in about}
    suite.Speed(tmp_path, CPU, (1, 9, 9), about, rows, {"copy_tb_s": 1.0}).save()
    kept = suite.Speed(tmp_path, CPU, (1, 9, 9), {"static": now["static"]})
    assert list(kept.rows) == ["fusion/theirs/eager/b1/n9", "fusion/static/eager/b1/n9"]
    assert kept.designs.keys() == {"theirs", "static"}


def test_designs_that_are_not_registered_stay_in_the_report(folder, tmp_path):
    """A report is rebuilt from its rows alone, also where the user's own file is not at hand."""
    text = (folder / "speed.json").read_text().replace("local_adaln", "theirs")
    content = json.loads(text)
    content["designs"]["theirs"] |= {"family": "hybrid", "needs": "flame"}
    content["rows"]["tracker/mediapipe/eager/b1"] = content["rows"]["frame/theirs/eager/b1/n300/r32"]
    (tmp_path / "speed.json").write_text(json.dumps(content))
    build_report(tmp_path)
    frames = pd.read_csv(tmp_path / "frames.csv").set_index("design")
    assert (
        frames.loc["theirs", "with tracker"].notna().all()
        and frames.loc["global_cross_attention", "with tracker"].isna().all()
    )
    assert (tmp_path / "over_gaussians.png").stat().st_size > 5000


def test_one_design_is_on_every_axis(monkeypatch):
    """The paper's operator; where it is not timed, the first that is no control."""
    assert in_every_mode({"static": "control", "theirs": "local", "local_adaln": "local"}) == ["local_adaln"]
    assert in_every_mode({"static": "control", "theirs": "local", "others": "local"}) == ["theirs"]
    plan = replace(PLAN, designs=("static", "local_film", "local_mlp"), modes=rig.MODES)
    keys = {row.key for row in suite.rows(plan)}
    for m in rig.MODES:
        assert f"fusion/local_film/{m}/b1/n500" in keys and f"frame/local_film/{m}/b1/n300/r16" in keys
        assert (f"fusion/local_mlp/{m}/b1/n500" in keys) == (m in ("eager", "triton+graph"))


def test_a_fast_row_that_disagrees_with_the_reference_is_wrong(tmp_path, monkeypatch):
    plain = rig.fusion

    def fusion(rig, mode):
        call = plain(rig, "eager")
        return call if mode == "eager" else lambda code: replace(call(code), colors=1 - call(code).colors)

    monkeypatch.setattr(rig, "fusion", fusion)
    row = Stage("fusion", "local_adaln", "compiled", 1, 300, 32)
    result = row.measure(PLAN, CPU)
    assert result["status"] == "wrong" and result["psnr"] < PSNR
    result = replace(row, mode="eager").measure(PLAN, CPU)
    assert result["status"] == "ok"


def test_an_error_that_is_no_number_is_wrong_whatever_comes_before_it(monkeypatch):
    op = case("decode")

    def without_a_number(x):
        first, *rest = op.call(x)
        return first, *(r * float("nan") for r in rest)

    monkeypatch.setattr(torch, "compile", lambda call: without_a_number)
    for backward in (False, True):
        assert Kernel("decode", "compiled", 1, 40, backward).measure(PLAN, CPU)["status"] == "wrong"


def test_gradients_of_many_gaussians_stay_in_16_bits(monkeypatch):
    plain = Case.inputs
    in_16_bits = lambda op, n, people, frames, _, *rest: plain(op, n, people, frames, torch.float16, *rest)  # noqa: E731
    monkeypatch.setattr(Case, "inputs", in_16_bits)  # as on a GPU
    call, _, _ = Kernel("attribute_fusion", "eager", 1, 65_536, True).prepare(PLAN, CPU)
    assert all(g.isfinite().all() for g in call(0))


def test_a_row_that_fails_says_why_and_the_rest_goes_on(tmp_path, monkeypatch):
    plan = replace(PLAN, designs=("local_adaln",), counts=(), resolutions=(), batches=(), tokens=())

    def broken(*_):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(rig, "frame", broken)
    rows = suite.run(tmp_path, CPU, plan).rows
    assert rows["frame/local_adaln/eager/b1/n300/r32"] == {"status": "failed: out of memory"}
    assert rows["fusion/local_adaln/eager/b1/n300"]["status"] == "ok"
    build_report(tmp_path)
    assert "failed: out of memory" in (tmp_path / "speed.md").read_text()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (None, 0),
        (RuntimeError("kernel"), 1),
        (torch.OutOfMemoryError("60 GiB"), 0),
        (UserError("no file"), 0),
        ("wrong", 1),
    ],
)
def test_the_exit_code_says_whether_every_row_that_can_run_is_right(tmp_path, monkeypatch, capsys, fault, code):
    good = Stage("driver", "resnet18", "eager", 1).measure(PLAN, CPU)

    def measure(row, *_):
        if isinstance(fault, Exception) and row.stage == "frame":
            raise fault
        return good | {"status": "wrong" if fault == "wrong" and row.stage == "frame" else "ok"}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(suite, "CASES", [])
    monkeypatch.setattr(Stage, "measure", measure)
    given = {"designs": ("local_adaln",), "gaussians": 300, "resolution": 32}
    assert main(tmp_path, given, True) == code
    out, err = capsys.readouterr()
    assert ("frame/local_adaln/eager/b1/n300/r32" in err) == bool(code)
    assert ("cannot run here" in out) == (fault is not None and not code)


def test_modes_and_designs_that_cannot_run_are_named(tmp_path):
    with pytest.raises(UserError, match="there are eager, compiled, triton"):
        main(tmp_path, {"modes": ("fast",)}, True)
    with pytest.raises(UserError, match="local_adaln"):
        main(tmp_path, {"designs": ("local_adalin",)}, True)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="needs a CUDA GPU"):
            main(tmp_path, {"modes": ("triton",)}, True)


@pytest.mark.gpu
def test_a_graph_keeps_what_it_reads():
    def make():
        weights = torch.full((1 << 20,), 3.0, device="cuda")
        return lambda x: x * weights

    call = protocol.graphed(make(), torch.ones(1 << 20, device="cuda"))
    torch.full((1 << 20,), 7.0, device="cuda")  # where the weights would have been
    assert (call(torch.full((1 << 20,), 2.0, device="cuda")) == 6).all()


@pytest.mark.parametrize("preset", [presets.cpu, presets.gpu])
@pytest.mark.parametrize("design", [d for d in variants.names() if variants.design(d).family != "control"])
def test_the_avatar_that_is_timed_moves(design, preset):
    """At a start of zero, which training may want, pictures would show nothing of what a fast mode gets wrong."""
    r = rig.rig(design, 300, 32, frames=2, base=preset())
    with torch.no_grad():
        drive, animate = rig.driver(r, "eager"), rig.fusion(r, "eager")
        a, b = (animate(drive(image)) for image in r.images)
    assert max(float((getattr(a, f) - getattr(b, f)).abs().max()) for f in ("means", "scales", "colors")) > 1e-5


@pytest.mark.gpu
@pytest.mark.unchecked  # torch.compile takes the functions as they are
@pytest.mark.parametrize("design", variants.names())
@pytest.mark.parametrize("mode", ["triton", "triton+graph", rig.AHEAD])
def test_the_fast_frame_is_the_eager_frame(design, mode):
    row = Stage("frame", design, mode, 2, 4097, 100)
    result = row.measure(Plan(frames=3), torch.device("cuda"))
    assert result["status"] == "ok", result


FLAME_PLAN = replace(PLAN, designs=("flame_adaln",), counts=(), resolutions=(), batches=(), tokens=())


def test_without_a_tracker_its_row_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("I4D_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = next(r for r in suite.rows(FLAME_PLAN) if isinstance(r, Tracker))
    s = suite.Speed(tmp_path, CPU, (1, 300, 32), roof={"copy_tb_s": 1.0, "matmul_tflop_s": 1.0})
    s.measure(row, FLAME_PLAN)
    assert s.rows[row.key]["status"].startswith("cannot run here: MediaPipe's face_landmarker.task is not at")


def test_designs_that_read_motion_codes_need_no_tracker():
    assert not any(isinstance(r, Tracker) for r in suite.rows(PLAN))


def test_frames_of_flame_designs_are_printed_with_the_tracker_too():
    """A frame of 2 ms behind a tracker of 8 ms: 100 per second; what needs no tracker has no such number."""
    timed = lambda ms: {"ms": ms, "p5": ms, "p95": ms, "host_ms": ms, "fps": 1000 / ms, "status": "ok"}  # noqa: E731
    times = {
        "tracker/mediapipe/eager/b1": 8.0,
        "frame/flame_uv/eager/b1/n9/r32": 2.0,
        "frame/flame_uv/eager/b4/n9/r32": 8.0,
        "frame/static/eager/b1/n9/r32": 2.0,
    }
    rows = {Key.parse(k): timed(ms) for k, ms in times.items()}
    table = frames_table(rows, {"flame_uv": {"needs": "flame"}, "static": {"needs": "none"}})
    assert [*map(str, table["with tracker"])] == ["100", "100", ""]


@pytest.mark.assets
def test_the_tracker_reads_what_the_picture_shows():
    """MediaPipe's blendshapes through the head's own map; a picture without a face is an error, not a frame."""
    head = exported_head("procedural")
    with Landmarker() as landmarker:
        track, picture = tracker(landmarker, head), tracked_pictures(1)[0]
        face, code = landmarker(picture), track(picture)
        with pytest.raises(RuntimeError, match="no face"):
            track(picture * 0)
    torch.testing.assert_close(code.pose[0], torch.from_numpy(face.blendshapes) @ head.arkit_pose)
    assert code.expression.shape == (1, head.n_expression) and code.expression.any() and not code.shape.any()
