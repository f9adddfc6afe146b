"""2D animators that are programs of their own: how each is called, and where it leaves what it made (PAPER §7).

A call has a folder of its own with `source.png` and the drivers, `driver000.mp4` and so on: programs name their results after
their inputs, cut names at the first dot, leave files beside the driver and skip what exists, so that no input of the user's is
named to them. A result is looked up after the call; what the program said last is the reason where there is none.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from i4d_bench.data.video.files import Picture, read_frames, write_video
from i4d_bench.data.video.photos import read_image
from i4d_bench.types import UserError

Rgb = UInt8[np.ndarray, "H W 3"]
MOVIES, PICTURES = (".mp4", ".mov", ".avi", ".mkv", ".webm"), (".png", ".jpg", ".jpeg", ".webp")
FPS = 25.0


class Driver(NamedTuple):
    """A picture or video, and the numbers of the frames that are wanted of it, ascending."""

    path: Path
    moments: tuple[int, ...]

    def frames(self) -> Iterator[Picture]:
        """Up to the last that is wanted. Raises UserError where it cannot be read."""
        if self.path.suffix.lower() in PICTURES:
            return iter([Picture(0, 0.0, read_image(self.path))])
        return itertools.takewhile(lambda p: p.number <= self.moments[-1], read_frames(self.path))

    def wanted(self) -> list[Rgb]:
        """The frames at `moments`, as far as there are any. Raises UserError."""
        return [p.rgb for p in self.frames() if p.number in self.moments]


@dataclass(frozen=True)
class Template:
    """How a program is called. `command` is split as a shell would, then {source}, {driver}, {out}, {name} and {config} are filled
    in: the photo, the driver, a folder for results, a name that no other call has, and a copy of `config` with our `test_cases`.

    results: globs with {driver} for its name without an ending and {name}, below {out} or the program's own folder; the first that
    matches counts. images: whether a driver may be a picture; else it becomes a video of `least` frames. most: frames of a driver
    that are read. config: a YAML file of the program's, for programs that take many drivers in one call.
    """

    command: str
    results: tuple[str, ...]
    images: bool = False
    least: int = 1
    most: int | None = None
    config: str | None = None

    @property
    def many(self) -> bool:
        return self.config is not None


TEMPLATES = {
    "liveportrait": Template(
        "python inference.py -s {source} -d {driver} -o {out} --no_flag_pasteback --no_flag_stitching --no_flag_relative_motion "
        "--flag_crop_driving_video",
        ("{out}/source--{driver}.mp4", "{out}/source--{driver}.jpg"),
        images=True,
    ),
    "xnemo": Template(
        "python scripts/pose2vid_xnemo.py --config {config} --device cuda --name {name}",
        ("output/*--{name}/split_vid/source_drivenby_{driver}.mp4",),
        most=500,
        config="configs/animation.yaml",
    ),
    "personalive": Template(
        "python inference_offline.py --config {config} --name {name}",
        ("results/*--{name}/split_vid/source_{driver}.mp4",),
        least=4,  # it drops what is left over of fours
        most=100,
        config="configs/prompts/personalive_offline.yaml",
    ),
}
OUT = "{out}/"
ANY = (f"{OUT}*",)
"""Of a program whose command the user writes: whatever picture or video it leaves in {out}."""


@dataclass(frozen=True)
class Command:
    """An animator that is a program. `program`: its folder, in which it runs. limit: seconds for a driver. retries: calls after the
    first, for drivers without a result. gpus: as CUDA_VISIBLE_DEVICES names them, one for each worker in turn."""

    name: str
    template: Template
    program: Path = Path()
    limit: float = 600.0
    retries: int = 1
    gpus: tuple[str, ...] = ()

    def __post_init__(self):
        if self.limit <= 0 or self.retries < 0:
            raise UserError(f"a limit of {self.limit} s and {self.retries} retries make no sense")
        if not self.program.is_dir():
            raise UserError(f"{self.program} is no folder: --program names the animator's own")
        fields = set(re.findall(r"{(.*?)}", self.template.command))
        wanted = {"config", "name"} if self.template.many else {"source", "driver"}
        if any(pattern.startswith(OUT) for pattern in self.template.results):
            wanted |= {"out"}
        if fields != wanted:
            names = ", ".join(f"{{{name}}}" for name in sorted(wanted))
            raise UserError(f"the command must name {names} and nothing else in braces: {self.template.command}")
        if self.template.config and not (self.program / self.template.config).is_file():
            raise UserError(f"{self.program} has no {self.template.config}: is it the folder of {self.name}?")

    @property
    def version(self) -> str:
        """The program's commit, if its folder is a git checkout."""
        try:
            done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=self.program, capture_output=True)
        except FileNotFoundError:  # there is no git
            return "unknown"
        return done.stdout.decode().strip() if done.returncode == 0 else "unknown"

    @property
    def flags(self) -> dict[str, Any]:
        return {"command": self.template.command}

    @property
    def most(self) -> int | None:
        return self.template.most

    def animate(self, source: Rgb, drivers: Sequence[Driver], worker: int) -> Iterator[list[Rgb] | str]:
        """For each driver, the frames at its moments as the program made them of the source, fewer where it made fewer; or in a
        sentence why there are none. Raises UserError where the program cannot be started at all."""
        with tempfile.TemporaryDirectory(prefix="i4d-") as folder:
            call = _Call(self, Path(folder), worker)
            Image.fromarray(source).save(call.source)
            made: dict[int, list[Rgb]] = {}
            missing, names = {}, {}
            for k, driver in enumerate(drivers):
                try:
                    names[k], missing[k] = call.place(k, driver), ""
                except UserError as e:
                    made[k], missing[k] = [], f"the driver cannot be used: {e}"
            try:
                for attempt in range(1 + self.retries):
                    todo = [k for k in names if k not in made]
                    together = self.template.many and not attempt  # later, one that fails takes no other along
                    for group in [todo] if together and todo else [[k] for k in todo]:
                        said = call.run([names[k] for k in group])
                        for k in group:
                            try:
                                made[k] = call.result(names[k], drivers[k])
                            except UserError as e:
                                missing[k] = f"{e}; {said}"
            finally:
                call.clean()
            yield from (made[k] if made.get(k) else missing[k] for k in range(len(drivers)))


class _Call:
    """One folder, one source, and the program's runs on it."""

    def __init__(self, animator: Command, folder: Path, worker: int):
        self.animator, self.template, self.folder, self.worker = animator, animator.template, folder, worker
        self.source, self.out, self.name = folder / "source.png", folder / "out", folder.name

    def place(self, k: int, driver: Driver) -> Path:
        """Writes a driver as the program takes it. Raises UserError where it cannot be read."""
        stem = self.folder / f"driver{k:03d}"
        if driver.path.suffix.lower() in PICTURES and self.template.images:
            Image.fromarray(read_image(driver.path)).save(stem.with_suffix(".png"))
            return stem.with_suffix(".png")
        return write_video(stem.with_suffix(".mp4"), _filled(driver.frames(), self.template.least), FPS)

    def run(self, drivers: list[Path]) -> str:
        """Returns how it ended: its exit code, or that it took too long, and the last line it printed."""
        self.clean()  # half a result of the call before: programs skip what exists
        self.out.mkdir()
        fields = {"source": self.source, "driver": drivers[0], "out": self.out, "name": self.name}
        if self.template.config:
            fields["config"] = self._config(drivers)
        command = [part.format(**fields) for part in shlex.split(self.template.command)]
        gpus = self.animator.gpus
        env = os.environ | ({"CUDA_VISIBLE_DEVICES": gpus[self.worker % len(gpus)]} if gpus else {})
        try:
            process = subprocess.Popen(
                command,
                cwd=self.animator.program,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as e:
            raise UserError(f"{command[0]} cannot be started: {e.strerror}") from e
        seconds = self.animator.limit * len(drivers)
        try:
            said, ended = process.communicate(timeout=seconds)[0], f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, ended = process.communicate()[0], f"stopped after {seconds:.0f} s"
        except BaseException:  # Ctrl-C: the program has a session of its own, and would go on
            os.killpg(process.pid, signal.SIGKILL)
            raise
        lines = [line.strip() for line in re.split(r"[\r\n]", said) if line.strip()]
        return f"{ended}: {lines[-1][:300]}" if lines else f"{ended}, and it printed nothing"

    def result(self, name: Path, driver: Driver) -> list[Rgb]:
        """Raises UserError where there is none, or it cannot be read."""
        for pattern in self.template.results:
            root = self.out if pattern.startswith(OUT) else self.animator.program
            pattern = pattern.removeprefix(OUT).format(driver=name.stem, name=self.name)
            found = [p for p in root.glob(pattern) if p.suffix.lower() in MOVIES + PICTURES and p.stat().st_size]
            if found:
                return Driver(max(found, key=lambda p: p.stat().st_mtime), driver.moments).wanted()
        raise UserError("the animator wrote nothing")

    def clean(self) -> None:
        """Off with what it left, also in the program's own folder under this call's name."""
        shutil.rmtree(self.out, ignore_errors=True)
        for pattern in self.template.results:
            if "{name}" in pattern:
                for folder in self.animator.program.glob(pattern.partition("{name}")[0] + self.name):
                    shutil.rmtree(folder)

    def _config(self, drivers: list[Path]) -> Path:
        """The program's own settings with our pairs: top-level `test_cases` of a YAML file."""
        assert self.template.config
        text = (self.animator.program / self.template.config).read_text(encoding="utf-8")
        kept = re.sub(r"^test_cases:.*\n(?:[ \t-].*\n|[ \t]*\n)*", "", text + "\n", flags=re.MULTILINE)
        path = self.folder / "config.yaml"
        cases = "".join(f'    - "{driver}"\n' for driver in drivers)
        path.write_text(f'{kept}\ntest_cases:\n  "{self.source}":\n{cases}', encoding="utf-8")
        return path


def _filled(frames: Iterable[Picture], least: int) -> Iterator[Rgb]:
    """The last again until there are a multiple of `least`."""
    count, last = 0, None
    for picture in frames:
        count, last = count + 1, picture.rgb
        yield picture.rgb
    if last is not None:
        yield from [last] * (-count % least)


def command(name: str, program: Path, written: str | None = None, **settings) -> Command:
    """The animator of a template, or of the user's own command. Raises UserError."""
    if name == "command":
        if not written:
            raise UserError("--animator command needs --command, with {source}, {driver} and {out} in it")
        return Command(name, Template(written, ANY, images="{driver}" in written), program, **settings)
    template = TEMPLATES[name]
    if written:
        template = dataclasses.replace(template, command=written)
    return Command(name, template, program, **settings)
