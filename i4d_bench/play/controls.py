"""The viewer's controls: what is shown, the 52 sliders, the clip, and how fast each stage is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import viser
from jaxtyping import Float

from i4d_bench.heads.expressions import NAMES
from i4d_bench.play import face
from i4d_bench.play.stage import Clip, Stage

PARTS = {
    "Brows": ("brow",),
    "Eyes": ("eye",),
    "Jaw": ("jaw",),
    "Mouth": ("mouth",),
    "Cheeks, nose, tongue": ("cheek", "nose", "tongue"),
}
PICTURES, SPLATS = "pictures", "splats"
HELP = "Drag to turn, right-drag to move, scroll to come closer."


class Controls:
    """Built on a server once. Every change calls `changed`."""

    def __init__(self, gui: viser.GuiApi, stage: Stage, clip: Clip, height: int, changed: Callable[[], None]):
        """height: of the picture at the start, pixels."""
        where = "GPU" if stage.device.type == "cuda" else "CPU: slower than a GPU"
        gui.add_markdown(f"{HELP} Drawn on the {where}.")
        with gui.add_folder("Show"):
            self.designs = {name: gui.add_checkbox(name, k < 3) for k, name in enumerate(stage.names)}
            self.person = gui.add_dropdown("person", list(stage.people))
            self.way = gui.add_dropdown("as", (PICTURES, SPLATS), hint="pictures: drawn here; splats: by your browser")
        with gui.add_folder("Clip"):
            self.play = gui.add_checkbox("play", False)
            self.frame = gui.add_slider("frame", 0, clip.count - 1, 1, 0)
        with gui.add_folder("Expression"):
            self.named = gui.add_dropdown("set to", tuple(face.named()))
            self.sliders = self._sliders(gui)
        with gui.add_folder("Speed"):
            self.speed = gui.add_markdown("")
            self.height = gui.add_slider("pixels", 128, 1024, 64, height, hint="height of the pictures")
        with gui.add_folder("Photo"):
            self.photo = gui.add_image(stage.photo(self.person.value), format="jpeg")
        self.driven = False  # by the clip; else by the sliders
        everything = (*self.designs.values(), self.person, self.way, self.height, self.play)
        for handle in everything:
            handle.on_update(lambda _: changed())
        for handle in self.sliders.values():
            handle.on_update(lambda _: self._drive(False, changed))
        self.frame.on_update(lambda _: self._drive(True, changed))
        self.play.on_update(lambda _: self._drive(True, changed))
        self.named.on_update(lambda _: self.set(face.named()[self.named.value]))

    def _sliders(self, gui: viser.GuiApi) -> dict[str, viser.GuiSliderHandle[float]]:
        out = {}
        for part, starts in PARTS.items():
            with gui.add_folder(part, expand_by_default=False):
                for name in (n for n in NAMES if n.startswith(starts)):
                    out[name] = gui.add_slider(name, 0.0, 1.0, 0.01, 0.0)
        return out

    def _drive(self, by_clip: bool, changed: Callable[[], None]) -> None:
        self.driven = by_clip
        changed()

    def set(self, values: Float[np.ndarray, " 52"]) -> None:
        """The sliders; the expression is then theirs."""
        for name, value in zip(NAMES, values, strict=True):
            self.sliders[name].value = float(value)

    @property
    def coefficients(self) -> Float[np.ndarray, " 52"]:
        return np.array([self.sliders[name].value for name in NAMES], np.float32)

    def shown(self) -> list[int]:
        """Which designs, by their place on the stage; the first where none is ticked."""
        return [k for k, handle in enumerate(self.designs.values()) if handle.value] or [0]

    def tell(self, stages: Mapping[str, Mapping[str, float]]) -> None:
        """Writes frames per second: design → stage → milliseconds."""
        lines = []
        for name, ms in stages.items():
            parts = ", ".join(f"{part} {took:.1f}" for part, took in ms.items())
            lines.append(f"**{name}: {1000 / sum(ms.values()):.0f} FPS**  \n{parts} ms" if ms else f"**{name}**")
        self.speed.content = "\n\n".join(lines)  # a table of so many columns is wider than the panel
