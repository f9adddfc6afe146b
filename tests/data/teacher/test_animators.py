"""Animators that are programs, against stand-ins that behave as the real ones do (PAPER §7)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i4d_bench.data.teacher.animators import TEMPLATES, Driver, command
from i4d_bench.data.video.files import write_video
from i4d_bench.types import UserError

SOURCE = np.full((48, 40, 3), 90, np.uint8)
READ = """
import argparse, os, re, subprocess, sys
import av
import numpy as np
from PIL import Image

def frames(path):
    if path.endswith(".png"):
        return [np.array(Image.open(path))]
    with av.open(path) as video:
        return [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]

def write_video(path, made):
    with av.open(path, "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.height, stream.width = made[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for rgb in made:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        video.mux(stream.encode(None))

def animated(source, driver):
    source = int(np.array(Image.open(source)).mean())
    return [np.full((64, 64, 3), min(source + int(f.mean()), 255), np.uint8) for f in frames(driver)]
"""
LIVEPORTRAIT = """
p = argparse.ArgumentParser()
p.add_argument("-s"); p.add_argument("-d"); p.add_argument("-o")
for flag in ("no_flag_pasteback", "no_flag_stitching", "no_flag_relative_motion", "flag_crop_driving_video"):
    p.add_argument("--" + flag, action="store_true")
a = p.parse_args()
name = lambda path: os.path.splitext(os.path.basename(path))[0]
stem = os.path.join(a.o, name(a.s) + "--" + name(a.d))
made = animated(a.s, a.d)
open(os.path.splitext(a.d)[0] + ".pkl", "w").close()
if a.d.endswith(".png"):
    Image.fromarray(made[0]).save(stem + ".jpg")
    Image.fromarray(np.concatenate([made[0]] * 3, 1)).save(stem + "_concat.jpg")
else:
    write_video(stem + ".mp4", made)
    write_video(stem + "_concat.mp4", [np.concatenate([f] * 3, 1) for f in made])
"""
CASES = """
def cases(path):
    text = open(path).read()
    assert "weights: there" in text, "the program's own settings are gone"
    block = text[text.index("test_cases:"):]
    assert "old.png" not in text, "the program's own example would be made, too"
    source = re.search(r'^  "(.*)":$', block, re.M).group(1)
    return source, re.findall(r'^    - "(.*)"$', block, re.M)

def batch(name, result):
    p = argparse.ArgumentParser()
    p.add_argument("--config"); p.add_argument("--name"); p.add_argument("--device")
    a = p.parse_args()
    folder = os.path.join(result, "20261127--" + a.name)
    os.makedirs(os.path.join(folder, "split_vid"), exist_ok=True)
    os.makedirs(os.path.join(folder, "concat_vid"), exist_ok=True)
    source, drivers = cases(a.config)
    open("calls.txt", "a").write(str(len(drivers)) + "\\n")
    for driver in drivers:
        assert driver.endswith(".mp4"), "it takes videos alone"
        stems = [os.path.basename(p).split(".")[0] for p in (source, driver)]
        yield source, driver, os.path.join(folder, "split_vid", name(*stems))
"""
XNEMO = (
    CASES
    + """
for source, driver, out in batch(lambda s, d: f"{s}_drivenby_{d}.mp4", "output"):
    if not os.path.exists(out):
        write_video(out, animated(source, driver)[:500])
"""
)
PERSONALIVE = (
    CASES
    + """
for source, driver, out in batch(lambda s, d: f"{s}_{d}.mp4", "results"):
    made = animated(source, driver)
    if not os.path.exists(out):
        write_video(out, made[: min(len(made) // 4 * 4, 100)])
"""
)
YAML = 'weights: there\ntest_cases:\n  "old.png":\n    - "old.mp4"\n\n  "./b.png":\n  - c.mp4\nseed: 42\n'
SCRIPTS = {
    "liveportrait": ("inference.py", LIVEPORTRAIT),
    "xnemo": ("scripts/pose2vid_xnemo.py", XNEMO),
    "personalive": ("inference_offline.py", PERSONALIVE),
}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder that looks like an animator's, with its stand-in; `python` is the one that runs the tests."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (bin / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")

    def make(name: str, script: str | None = None) -> Path:
        folder = tmp_path / name
        file, text = SCRIPTS.get(name, ("run.py", ""))
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(READ + (script or text))
        if name in TEMPLATES and TEMPLATES[name].config:
            config = folder / TEMPLATES[name].config
            config.parent.mkdir(parents=True)
            config.write_text(YAML)
        return folder

    return make


@pytest.fixture
def drivers(tmp_path):
    """A picture of brightness 20, and a video that brightens from 10 by 10 a frame."""
    folder = tmp_path / "my drivers [1]"
    folder.mkdir()
    Image.fromarray(np.full((32, 32, 3), 20, np.uint8)).save(folder / "a.b.png")
    write_video(folder / "face one.mp4", [np.full((32, 32, 3), 10 + 10 * k, np.uint8) for k in range(7)], 25.0)
    return [Driver(folder / "a.b.png", (0,)), Driver(folder / "face one.mp4", (0, 3, 5))]


def brightness(made) -> list[float]:
    return [float(frame.mean()) for frame in made]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_fit_the_programs(program, drivers, name):
    folder = program(name)
    animator = command(name, folder)
    before = set(drivers[0].path.parent.iterdir())
    picture, video = animator.animate(SOURCE, drivers, 0)
    np.testing.assert_allclose(brightness(picture), [110], atol=3)
    np.testing.assert_allclose(brightness(video), [100, 130, 150], atol=3)
    assert set(drivers[0].path.parent.iterdir()) == before, "nothing is left beside the drivers"
    left = {p.name for p in folder.rglob("*") if p.is_file()}
    assert not any(n.endswith((".mp4", ".jpg")) for n in left), "nor in the program's folder"


@pytest.mark.parametrize("name", ["xnemo", "personalive"])
def test_programs_that_take_many_drivers_are_started_once(program, drivers, name):
    folder = program(name)
    assert all(not isinstance(m, str) for m in command(name, folder).animate(SOURCE, drivers, 0))
    assert (folder / "calls.txt").read_text() == "2\n"


def test_a_driver_on_which_a_program_dies_takes_no_other_along(program, drivers):
    """The batch dies on the first; the others are made one by one."""
    folder = program(
        "personalive",
        PERSONALIVE.replace("    made = ", "    assert 'driver000' not in driver, 'no face'\n    made = "),
    )
    first, second = command("personalive", folder).animate(SOURCE, drivers, 0)
    assert first == "the animator wrote nothing; exit code 1: AssertionError: no face"
    np.testing.assert_allclose(brightness(second), [100, 130, 150], atol=3)


def test_half_a_result_does_not_stand_in_the_way(program, drivers):
    """A program that dies while it writes leaves a file, and skips it when it is called again."""
    dying = "        open(out, 'w').write('half'); raise SystemExit('killed')\n    if not os.path.exists(out):\n"
    once = "    if not os.path.exists(out) and not os.path.exists('tried'):\n        open('tried', 'w').close()\n"
    script = PERSONALIVE.replace("    if not os.path.exists(out):\n", once + dying)
    (made,) = command("personalive", program("personalive", script)).animate(SOURCE, drivers[1:], 0)
    np.testing.assert_allclose(brightness(made), [100, 130, 150], atol=3)


OWN = "python run.py {source} {driver} {out}"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit('CUDA out of memory')", "the animator wrote nothing; exit code 1: CUDA out of memory"),
        ("print('done')", "the animator wrote nothing; exit code 0: done"),
        ("pass", "the animator wrote nothing; exit code 0, and it printed nothing"),
        ("open(sys.argv[3] + '/a.mp4', 'w').close()", "the animator wrote nothing"),
        ("open(sys.argv[3] + '/a.mp4', 'w').write('no video')", "a.mp4"),
    ],
)
def test_a_program_that_makes_nothing_is_a_reason(program, drivers, script, said):
    (made,) = command("command", program("own", script), OWN).animate(SOURCE, drivers[:1], 0)
    assert isinstance(made, str) and said in made


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into Linux's /proc")
def test_a_program_that_hangs_is_stopped_with_all_that_it_started(program, drivers, tmp_path):
    script = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\nprint('loading', flush=True)\nchild.wait()"
    )
    (made,) = command("command", program("own", script), OWN, limit=5.0, retries=0).animate(SOURCE, drivers[:1], 0)
    assert made == "the animator wrote nothing; stopped after 5 s: loading"
    assert not running(int((tmp_path / "child").read_text()))


def test_what_failed_once_is_tried_again(program, drivers, tmp_path):
    script = (
        f"first = {str(tmp_path / 'tried')!r}\n"
        "if not os.path.exists(first):\n    open(first, 'w').close(); raise SystemExit('busy')\n"
        "Image.fromarray(animated(sys.argv[1], sys.argv[2])[0]).save(sys.argv[3] + '/made.png')"
    )
    folder = program("own", script)
    (made,) = command("command", folder, OWN, retries=0).animate(SOURCE, drivers[:1], 0)
    assert isinstance(made, str)
    (tmp_path / "tried").unlink()
    (made,) = command("command", folder, OWN, retries=1).animate(SOURCE, drivers[:1], 0)
    np.testing.assert_allclose(brightness(made), [110], atol=1)


def test_workers_have_gpus_in_turn(program, drivers):
    script = "Image.fromarray(np.full((8, 8, 3), int(os.environ['CUDA_VISIBLE_DEVICES']), np.uint8)).save(sys.argv[3] + '/a.png')"
    animator = command("command", program("own", script), OWN, gpus=("3", "7"))
    used = [brightness(next(animator.animate(SOURCE, drivers[:1], worker)))[0] for worker in range(3)]
    assert used == [3, 7, 3]


def test_a_driver_that_cannot_be_read_is_named_and_the_others_are_made(program, drivers, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad, good = command("personalive", program("personalive")).animate(
        SOURCE, [Driver(tmp_path / "bad.mp4", (0,)), drivers[1]], 0
    )
    assert isinstance(bad, str) and "the driver cannot be used" in bad and "bad.mp4" in bad
    assert len(good) == 3


def test_fewer_frames_than_asked_for_are_those_that_there_are(program, drivers):
    script = "write_video(sys.argv[3] + '/a.mp4', animated(sys.argv[1], sys.argv[2])[:4])"
    (made,) = command("command", program("own", script), OWN).animate(SOURCE, drivers[1:], 0)
    assert len(made) == 2


def test_mistakes_are_one_sentence(program, tmp_path):
    folder = program("own")
    with pytest.raises(UserError, match="needs --command"):
        command("command", folder)
    for wrong in (
        "run {source} {driven} {out}",
        "run {source} {out}",
        "run {source} {driver}",
        "run",
        "run {} {driver}",
    ):
        with pytest.raises(UserError, match=r"must name {driver}, {out}, {source}"):
            command("command", folder, wrong)
    with pytest.raises(UserError, match="is no folder"):
        command("liveportrait", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no configs/animation.yaml: is it the folder of xnemo"):
        command("xnemo", folder)
    absent = command("command", folder, "nosuchprogram {source} {driver} {out}")
    Image.fromarray(SOURCE).save(tmp_path / "p.png")
    with pytest.raises(UserError, match="nosuchprogram cannot be started"):
        next(absent.animate(SOURCE, [Driver(tmp_path / "p.png", (0,))], 0))
