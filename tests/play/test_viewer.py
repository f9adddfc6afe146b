"""The viewer: what its controls mean, and the page itself in headless Chromium against a real server."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import pages
from helpers.ranks import Rank, command
from helpers.runs import untrained
from PIL import Image

from i4d_bench.camera import RADIUS
from i4d_bench.config.presets import smoke
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.heads.expressions import INDEX
from i4d_bench.play import face
from i4d_bench.play.controls import SPLATS
from i4d_bench.play.panels import SEEN, arranged, seen_by, side
from i4d_bench.play.stage import Stage
from i4d_bench.play.viewer import Viewer
from i4d_bench.types import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path, monkeypatch, smoke_frames) -> Path:
    """A folder of two runs of one experiment."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for design in ("local_adaln", "static"):
        untrained(tmp_path / "runs" / design, design)
    return tmp_path / "runs"


def test_sliders_are_the_codes_of_faces_that_make_the_expression(runs):
    stage = Stage([runs])
    assert stage.names == ["local_adaln", "static"] and len(stage.people) == 3
    known = stage.sources.frames.coefficients[0]
    code, true = stage.face(known), stage.sources.code(np.array([0]))
    torch.testing.assert_close(code.motion, true.motion)
    torch.testing.assert_close(code.flame.expression, true.flame.expression, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(code.flame.pose, true.flame.pose, rtol=1e-3, atol=1e-4)


def test_an_encoder_is_shown_a_head_with_the_sliders_expression(tmp_path, monkeypatch, smoke_frames):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    experiment = dataclasses.replace(smoke(), driver="image")
    stage = Stage([untrained(tmp_path / "runs" / "smoke" / "run", "local_adaln", experiment, ImageEncoder(32))])
    rest, laugh = (stage.face(face.named()[name]).motion for name in ("rest", "laugh"))
    assert rest.shape == (1, 512) and not torch.allclose(rest, laugh, atol=1e-3)


def test_runs_of_other_data_do_not_stand_side_by_side(runs, tmp_path):
    other = dataclasses.replace(smoke(), world=dataclasses.replace(smoke().world, seed=5))
    with pytest.raises(UserError, match="another world"):
        Stage([runs, untrained(tmp_path / "other", "static", other)])


def test_the_built_in_motion_closes_and_names_are_expressions():
    values = face.motion()
    assert values.shape[1] == len(INDEX) and (values >= 0).all() and (values <= 1).all()
    assert np.abs(np.diff(values, axis=0)).max() < 0.2, "no jumps at 25 frames a second"
    assert np.abs(values[-1] - values[0]).max() < 0.2
    assert face.named()["blink"][INDEX["eyeBlinkLeft"]] == 1


def test_panels_stand_side_by_side_and_fit():
    assert side(1, 384, 16 / 9) == 384 and side(3, 384, 16 / 9) == 224
    black, white = torch.zeros(64, 64, 3), torch.ones(64, 64, 3)
    picture = arranged([black, white], ["a", "b"], 64, 4.0)
    assert picture.shape == (64, 256, 3)
    assert [picture[20, x, 0] for x in (10, 70, 180, 250)] == [128, 0, 255, 128]
    ahead = seen_by(np.array([0, 0, 2.7]), np.diag([1.0, -1, -1]), 0.3, 64, torch.device("cpu"))
    assert ahead.project(torch.zeros(1, 3)).flatten().tolist() == pytest.approx([32, 32])


def test_names_stay_in_their_panels():
    picture = arranged([torch.zeros(96, 96, 3)] * 2, ["global_cross_attention", "a"], 192, 1.0)
    named = picture[48:144, :96]
    assert named.any() and not named[:, :2].any() and not named[:, -2:].any()


@pytest.mark.parametrize("aspect", [0.6, 1.3, 2.5])
def test_splats_stand_side_by_side_in_the_first_view_and_are_sent_once(runs, monkeypatch, aspect):
    sent, labels = {}, {}
    viewer = Viewer(Stage([runs]), "127.0.0.1", 8767)
    scene = SimpleNamespace(set_background_image=lambda *_: None)
    client = SimpleNamespace(camera=SimpleNamespace(aspect=aspect), scene=scene)

    def splats(name, centres, *_, position):
        assert name not in sent, "sent again"
        sent[name] = centres + position

    def label(name, text, position, anchor, font_size_mode, font_scene_height):
        labels[name] = position[1] + font_scene_height

    monkeypatch.setattr(viewer.server, "get_clients", lambda: {0: client})
    monkeypatch.setattr(viewer.server.scene, "add_gaussian_splats", splats)
    monkeypatch.setattr(viewer.server.scene, "add_label", label)
    viewer.controls.way.value = SPLATS
    viewer.draw()
    viewer.draw()  # the camera moved
    viewer.server.stop()
    left, right = sent["/local_adaln"], sent["/static"]
    assert np.median(left[:, 0]) < 0 < np.median(right[:, 0])
    for centres in (left, right):
        seen = centres[:, :2] / (RADIUS - centres[:, 2:]) * 2 * RADIUS / SEEN
        assert (np.abs(np.median(seen, axis=0)) < (aspect, 1)).all()
        assert (np.abs(seen) < (1.15 * aspect, 1)).mean() > 0.9
    assert max(labels.values()) < SEEN / 2


@pytest.fixture
def address(runs) -> Iterator[str]:
    """Of a server in a process of its own."""
    server = Rank(command("view", "--run", str(runs), "--port", "8765"), {"CUDA_VISIBLE_DEVICES": ""})
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"local_adaln, static: (http://\S+\d)", said):
            break
    assert found, said + server.stderr.read()
    yield found[1]
    server.kill()


IN_FRONT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""As a terminal starts a command: tests that a script runs in the background ignore Ctrl-C, and so does what they start."""


def test_ctrl_c_ends_it_with_a_line_and_without_a_trace(runs):
    code = IN_FRONT + command("view", "--run", str(runs), "--port", "8775")
    env = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-u", "-c", code], env=env, **pipes) as server:
        limit = threading.Timer(120, server.kill)
        limit.start()
        for line in server.stdout or ():
            if "Ctrl-C ends it" in line:
                break
        for _ in range(3):
            server.send_signal(signal.SIGINT)
        said = server.communicate()[0]
        limit.cancel()
    assert said.endswith("the viewer has ended\n") and "Traceback" not in said and server.returncode == 130


def test_the_page_shows_heads_that_turn_change_and_become_splats(address):
    with pages.chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 600})
        page.goto(address)

        def heads() -> np.ndarray:
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            return np.asarray(shot, float)[200:, :560]  # without controls and notices

        def until(condition, what: str) -> np.ndarray:
            for _ in range(60):
                seen = heads()
                if condition(seen):
                    return seen
                page.wait_for_timeout(250)
            pytest.fail(what)

        def another(before: np.ndarray, what: str) -> np.ndarray:
            return until(lambda now: np.abs(now - before).mean() > 1 and now.std() > 5, what)

        front = until(lambda now: now.std() > 5, "no heads")
        page.mouse.move(300, 300)
        page.mouse.down()
        page.mouse.move(420, 300, steps=5)
        page.mouse.up()
        turned = another(front, "dragging does not turn the heads")
        page.get_by_role("combobox", name="as").click()
        page.get_by_role("option", name="splats").click()
        both = another(turned, "no splats")
        page.get_by_label("static", exact=True).click()
        another(both, "a design cannot be taken away")
        assert page.get_by_text("FPS").count() and page.get_by_text("fusion").count()
        right = [text.bounding_box() for text in page.get_by_text("FPS").all()]
        assert all(box and box["x"] + box["width"] < 900 for box in right), "cut off at the panel's edge"
        browser.close()
