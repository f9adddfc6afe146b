"""The viewer: trained avatars in a browser, by viser. Drag the camera, move the 52 sliders or play a clip, compare designs.

Pictures are drawn here and sent as JPEG, as smooth as this machine draws them; splats are sent once per expression and drawn by
the visitor's browser, for a close look. One thread draws; viser's own threads only say that something changed.
"""

from __future__ import annotations

import io
import signal
import threading
import time
from collections import defaultdict, deque
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from i4d_bench.camera import FOV, RADIUS
from i4d_bench.extras import extra
from i4d_bench.play.panels import LETTER, SEEN, arranged, beside, seen_by, side
from i4d_bench.play.stage import Stage
from i4d_bench.progress import console
from i4d_bench.render.views import GREY
from i4d_bench.types import Gaussians, MotionCode, UserError

with extra("view", "the viewer"):
    import viser
    import viser.transforms

    from i4d_bench.play.controls import SPLATS, Controls

HEIGHT = {"cpu": 384, "cuda": 768}
"""Of the pictures at the start, pixels."""
DRAFT, STILL = 0.5, 0.3
"""On a CPU pictures have this share of their height while something moves, and all of it after so many seconds."""
KEPT, TOLD = 20, 0.5
"""Pictures that times are medians of; seconds between two tellings."""


class Viewer:
    """A server with its page; `serve` draws for ever."""

    def __init__(self, stage: Stage, host: str, port: int):
        """Raises UserError where the port is taken."""
        self.stage, self.changed = stage, threading.Event()
        try:
            self.server = viser.ViserServer(host, port, "i4d_bench", verbose=False)
        except OSError as e:
            raise UserError(f"the port {port} cannot be had ({e.strerror or e}): name another with --port") from e
        self.port = self.server.get_port()
        self.server.gui.configure_theme(control_layout="collapsible", show_logo=False, show_share_button=False)
        self.server.scene.set_up_direction("+y")
        self.clip = stage.played()
        self.controls = Controls(self.server.gui, stage, self.clip, HEIGHT[stage.device.type], self.changed.set)
        self.server.on_client_connect(self._welcome)
        self.person, self.told, self.sharp = self.controls.person.value, 0.0, True
        self.placed: tuple = ()  # what the splats in the scene are
        self.times: dict[str, dict[str, deque]] = defaultdict(lambda: defaultdict(lambda: deque(maxlen=KEPT)))

    def _welcome(self, client: viser.ClientHandle) -> None:
        client.camera.position, client.camera.look_at = (0.0, 0.0, RADIUS), (0.0, 0.0, 0.0)
        client.camera.fov = np.radians(FOV)
        client.camera.on_update(lambda _: self.changed.set())
        self.changed.set()

    def serve(self) -> None:
        while True:
            self.step()

    def step(self) -> None:
        """Waits for a change, or for the clip's next frame, and draws it; what stands still is drawn once more, sharp."""
        playing = self.controls.play.value
        moved = self.changed.wait(1 / self.clip.fps if playing else None if self.sharp else STILL)
        self.changed.clear()
        if playing:
            self.controls.frame.value = int(time.monotonic() * self.clip.fps) % self.clip.count
        self.sharp = not (moved or playing) or self.stage.device.type == "cuda"
        self.draw()

    def draw(self) -> None:
        """For every visitor."""
        controls, stage = self.controls, self.stage
        if controls.person.value != self.person:
            self.person = controls.person.value
            stage.lift(self.person)
            controls.photo.image = stage.photo(self.person)
        begun = time.perf_counter()
        face = controls.frame.value if controls.driven else controls.coefficients
        code = stage.face(face) if isinstance(face, np.ndarray) else self.clip.code(face)
        driver = 1e3 * (time.perf_counter() - begun)
        splats, clients = controls.way.value == SPLATS, self.server.get_clients().values()
        for client in clients:
            if splats:
                client.scene.set_background_image(np.full((8, 8, 3), round(GREY * 255), np.uint8))
            else:
                self._send_picture(client, code, driver)
        shown = controls.shown() if splats and clients else []
        aspect = min((round(client.camera.aspect, 2) for client in clients), default=1.0)  # that all may see them
        wanted = (shown, self.person, aspect, np.asarray(face).tobytes())
        if wanted != self.placed:
            self.placed = wanted
            self._place_splats(code, shown, aspect)
        if time.monotonic() - self.told > TOLD:
            self.told = time.monotonic()
            shown = [stage.names[k] for k in controls.shown()]
            controls.tell({n: {s: float(np.median(d)) for s, d in self.times[n].items()} for n in shown})

    def _send_picture(self, client: viser.ClientHandle, code: MotionCode, driver: float) -> None:
        stage, shown, eye = self.stage, self.controls.shown(), client.camera
        height = int(self.controls.height.value * (1 if self.sharp else DRAFT))
        size = side(len(shown), height, eye.aspect)
        rotation = viser.transforms.SO3(np.asarray(eye.wxyz)).as_matrix()
        camera = seen_by(np.asarray(eye.position), rotation, eye.fov, size, stage.device)
        pictures = [stage.puppets[k].draw(code, camera) for k in shown]
        begun = time.perf_counter()
        names = [stage.names[k] for k in shown]
        image = arranged([p.rgb for p in pictures], names, height, eye.aspect)
        client.scene.set_background_image(image, "jpeg", jpeg_quality=90)
        sent = 1e3 * (time.perf_counter() - begun) / len(shown)
        for name, picture in zip(names, pictures, strict=True):
            for part, ms in {"driver": driver, **picture.ms, "sending": sent}.items():
                self.times[name][part].append(ms)

    def _place_splats(self, code: MotionCode, shown: list[int], aspect: float) -> None:
        """Those of the designs that are shown, side by side with their names above them; all others are taken away."""
        scene, names = self.server.scene, self.stage.names
        for k in set(range(len(names))) - set(shown):
            scene.remove_by_name(f"/{names[k]}")
        places, size = beside(max(len(shown), 1), aspect)
        for k, x in zip(shown, places, strict=False):
            splats = _as_splats(self.stage.puppets[k].gaussians(code), size)
            scene.add_gaussian_splats(f"/{names[k]}", *splats, position=(x, 0.0, 0.0))
            letters = min(0.04, size / (LETTER * max(len(names[k]) for k in shown))) * SEEN
            scene.add_label(f"/{names[k]}/name", names[k], position=(0.0, size * SEEN / 2, 0.0), anchor="bottom-center",
                            font_size_mode="scene", font_scene_height=letters)  # fmt: skip


def _as_splats(g: Gaussians, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres [N,3], covariances [N,3,3], colours [N,3] and opacities [N,1] of a batch of one, scaled by `size`."""
    turns = viser.transforms.SO3(torch.nn.functional.normalize(g.quats[0], dim=-1).double().cpu().numpy()).as_matrix()
    spread = turns * g.scales[0].double().cpu().numpy()[:, None]
    opacities, colors = (t[0].clamp(0, 1).cpu().numpy() for t in (g.opacities, g.colors))
    return size * g.means[0].cpu().numpy(), size**2 * spread @ spread.swapaxes(1, 2), colors, opacities[:, None]


def _interrupt(*_) -> None:
    """The first Ctrl-C ends the viewer; a second must not interrupt its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def view(
    runs: tuple[Path, ...],
    source: Path | None,
    driving: Path | None,
    host: str,
    port: int,
    model: Path | None,
    driver: Path | None,
) -> int:
    """Serves until it is interrupted; returns the exit code of that. Arguments as `Stage` and `Viewer` have them. Raises
    UserError."""
    stage = Stage(runs, source, driving, model, driver)
    viewer = Viewer(stage, host, port)
    slow = "" if stage.device.type == "cuda" else "; drawn on the CPU, slower than on a GPU"
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else who started this wants it ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        console.print(f"{', '.join(stage.names)}: http://{host}:{viewer.port}{slow}; Ctrl-C ends it")
        viewer.serve()
    except KeyboardInterrupt:
        with redirect_stdout(io.StringIO()):  # viser has a line of its own
            viewer.server.stop()
        console.print("the viewer has ended")
    return 130
