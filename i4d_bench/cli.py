"""The `i4d-bench` command. Mistakes end in one sentence and exit code 2, an interruption in exit code 130."""

from __future__ import annotations

import dataclasses
import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from i4d_bench import __version__, outputs, siblings
from i4d_bench.errors import UserError
from i4d_bench.portable import print_anything

app = tyro.extras.SubcommandApp()

WRITTEN = "names, your files (./my_gain.py) or modules (package.module), or all"
Designs = Annotated[
    tuple[str, ...],
    arg(
        help=f"{WRITTEN}; behind each @native: its published size, or @SETTING=VALUE,…; default: the preset's own four"
    ),
]
Counted = Annotated[tuple[str, ...], arg(help=f"{WRITTEN}; default: all")]
Foreign = Annotated[
    tuple[str, ...], arg(help="your files (./my_gain.py) or modules (package.module), beside those here")
]
Baseline = Annotated[
    str | None, arg(help="the row that others are compared with; default: local_adaln, or the first that is no control")
]
Json = Annotated[bool, FlagCreatePairsOff, arg(help="for scripts: JSON on standard output, nothing else there")]


@app.command
def run(
    preset: Annotated[str, arg(help="cpu, gpu, paper or smoke; auto: gpu where there is one")] = "auto",
    designs: Designs = (),
    ablation: Annotated[
        str | None,
        arg(help="one of `i4d-bench list ablations`; designs stand beside its own, and the search tries them alone"),
    ] = None,
    data: Annotated[
        tuple[Path, ...],
        UseAppendAction,
        arg(help="a data set made by `ingest`, in place of a rendered world; several (--data A --data B) side by side"),
    ] = (),
    hold_out: Annotated[
        tuple[str, ...], arg(help="people of --data who are never trained on, by their video's name or their number")
    ] = (),
    init: Annotated[
        tuple[Path, ...],
        UseAppendAction,
        arg(
            help="a finished run (a folder under runs/, or one of several) whose weights designs start from; may be given again"
        ),
    ] = (),
    world: Annotated[
        Literal["procedural", "ict"] | None,
        arg(
            help="the heads that are rendered; ict needs a file, see `i4d-bench assets`; default: procedural. With --data: half of "
            "each training step's people are this world's"
        ),
    ] = None,
    driver: Annotated[
        str | None,
        arg(
            help="image, sliders, deep, blendshapes, flame, or your encoder's file (./encoder.onnx, .pt, .ts); "
            "default: the preset's (gpu, paper: image; else sliders), on video blendshapes"
        ),
    ] = None,
    flame: Annotated[
        Path | None, arg(help="your FLAME .pkl for the parametric designs; default: the world's own head")
    ] = None,
    teacher: Annotated[
        Path | None, arg(help="pairs made by `teacher make`, which designs learn from; default: the data's own frames")
    ] = None,
    supervision: Annotated[
        Literal["monocular", "lifted", "multiview"] | None,
        arg(
            help="by the teacher's pictures, by views that a lifting network makes of them, or by the store's true views"
        ),
    ] = None,
    bias_sink: Annotated[
        bool, arg(help="half of each batch is the data's own frames; a learned token marks the teacher's half")
    ] = False,
    seeds: Annotated[
        str, arg(help="of weights and batches: 0, 0-3 or 0,2,5; a table that calls one row better than another takes 3")
    ] = "0",
    set: Annotated[
        tuple[str, ...], arg(help="FIELD=VALUE, e.g. train.lr=3e-4 or overrides.local_adaln.hidden=64")
    ] = (),
    reports: Annotated[Path, arg(help="where the report folder goes")] = Path("reports"),
    runs: Annotated[Path, arg(help="where checkpoints are kept")] = Path("runs"),
    jobs: Annotated[
        int | None,
        arg(
            help="trainings at once on each GPU, or in all without one; default: on a GPU what its free memory holds, up to five, "
            "else one for each core; under torchrun one"
        ),
    ] = None,
    slurm: Annotated[
        tuple[str, ...] | None,
        arg(
            help="the work is done by jobs of a SLURM cluster, with options KEY=VALUE: partition, timeout_min, gpus_per_node, "
            "cpus_per_task, mem_gb, array_parallelism, …"
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, arg(help="a folder in which `tensorboard --logdir` finds the curves, while designs train")
    ] = None,
    fresh: Annotated[bool, arg(help="train and score again what is finished, and all that is shared")] = False,
    baseline: Baseline = None,
    dry_run: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="trains nothing: prints parameters, memory and hours by card and number of cards"),
    ] = False,
) -> None:
    """Trains and evaluates fusion designs, and writes records, tables and figures. Goes on where it was stopped."""
    from i4d_bench.config import ablations, presets
    from i4d_bench.config.experiment import Teacher
    from i4d_bench.config.override import override
    from i4d_bench.jobs import names
    from i4d_bench.jobs import run as job
    from i4d_bench.train import distributed
    from variants import given

    with distributed.joined():
        if slurm is not None and preset == "auto":
            raise UserError(
                "--slurm: name the preset for its nodes, --preset gpu for instance; this machine may be none of them"
            )
        if teacher is None and (supervision or bias_sink):
            raise UserError("--supervision and --bias-sink go with --teacher")
        designs = _known(designs)
        experiment = presets.preset(job.default_preset() if preset == "auto" else preset)
        if ablation:
            experiment = ablations.ablation(ablation, experiment, designs)
        elif designs:
            experiment = dataclasses.replace(experiment, designs=designs)
        own = dataclasses.replace(experiment.world, kind=world or "procedural", hold_out=hold_out)
        if data:
            path, *further = map(str, data)
            own = dataclasses.replace(own, kind="clips", path=path, further=tuple(further), beside=world)
        experiment = dataclasses.replace(
            experiment,
            world=own,
            driver=driver or ("blendshapes" if data else experiment.driver),
            teacher=Teacher(str(teacher), supervision or "monocular", bias_sink) if teacher else Teacher(),
            init=tuple(map(str, init)),
            flame=str(flame) if flame else None,
            sources=given(designs),
        )
        experiment = override(experiment, list(set))
        if dry_run:
            from i4d_bench.jobs.forecast import show

            show(experiment, reports / "published")
        else:
            if slurm is not None and (unnamed := [o for o in slurm if "=" not in o]):
                raise UserError(f"--slurm {unnamed[0]}: options are written KEY=VALUE")
            cluster = None if slurm is None else dict(o.split("=", 1) for o in slurm)
            job.run(experiment, reports, runs, jobs, fresh, baseline, names.seeds(seeds), cluster, tensorboard)


@app.command
def reproduce(
    published: Positional[Annotated[Path, arg(help="a report folder, reports/published/NAME for instance")]],
    designs: Annotated[
        tuple[str, ...], arg(help="of the report's rows, or where they lie now (./my_gain.py); default: all")
    ] = (),
    runs: Annotated[
        Path, arg(help="what is trained again is kept in reproduced/NAME/ below it, its report and checkpoints")
    ] = Path("runs"),
    jobs: Annotated[int | None, arg(help="designs trained at once; default: as `run`")] = None,
    driver: Annotated[Path | None, arg(help="where the report's encoder lies now, if it was moved")] = None,
    keep: Annotated[bool, arg(help="writes the comparison into the report's folder, where the site finds it")] = False,
) -> None:
    """Trains again what a report holds and compares row by row. Goes on where it was stopped.

    Exit code 1: a row differs by more than its spread.
    """
    from i4d_bench.jobs.reproduce import reproduce as job

    sys.exit(job(published, _known(designs), runs, jobs, driver, keep))


@app.command
def ingest(
    videos: Annotated[
        Positional[tuple[Path, ...]],
        arg(help="one person each: videos, folders of images, or folders in the format"),
    ],
    out: Annotated[Path, arg(help="the data set's folder, which is made")],
    format: Annotated[
        Literal["video", "vhap", "gagavatar"],
        arg(help="video, or what a tracker left: VHAP's export, GAGAvatar's data"),
    ] = "video",
    flame: Annotated[Path | None, arg(help="the FLAME file that the tracker used; for tracked data alone")] = None,
    size: Annotated[int, arg(help="side of the crops, pixels")] = 128,
    model: Annotated[
        Path | None, arg(help="MediaPipe's face_landmarker.task; default: I4D_ASSETS, or the cache")
    ] = None,
    stride: Annotated[int, arg(help="takes every so many frames")] = 1,
    max_frames: Annotated[int | None, arg(help="of a video, at most; default: all")] = None,
) -> None:
    """Turns talking-head videos, or tracked data, into a data set: crop, mask, landmarks, expression and a camera per frame."""
    given = {"size": size, "model": model, "stride": stride, "max_frames": max_frames}
    if format == "video":
        if flame:
            raise UserError(
                "--flame goes with tracked data (--format); video's coefficients are mapped when a run starts"
            )
        from i4d_bench.data.video.clips import ingest as build

        build(list(videos), out, **given)
    else:
        from i4d_bench.data.imports.ingest import ingest as build

        build(list(videos), out, format=format, flame=flame, **given)


@app.command
def data(
    what: Annotated[Positional[Literal["check"]], arg(help="what is done with it")],
    store: Annotated[Positional[Path], arg(help="a folder of teacher pairs")],
    leave_out: Annotated[bool, arg(help="marks bad rows as failed: training goes without them")] = False,
    complete: Annotated[bool, arg(help="a pair that failed when it was made counts as bad")] = False,
) -> None:
    """Reads a store of teacher pairs through and names every bad row. Exit code 1: there is one."""
    from i4d_bench.data.teacher.check import check as job

    sys.exit(job(store, leave_out, complete))


@app.command
def teacher(
    what: Annotated[Positional[Literal["make"]], arg(help="what is done")],
    animator: Annotated[
        Literal["liveportrait", "xnemo", "personalive", "command", "warp", "world"],
        arg(
            help="what animates; command: any program, by --command; warp: landmarks, built in; world: rendered heads, spoiled as "
            "animators spoil"
        ),
    ],
    out: Annotated[Path, arg(help="the store, which is made or gone on with")],
    sources: Annotated[Path | None, arg(help="a folder of photos, one person each; not for world")] = None,
    drivers: Annotated[Path | None, arg(help="a folder of pictures and videos of faces; not for world")] = None,
    program: Annotated[Path, arg(help="the animator's own folder, in which it is started")] = Path("."),
    command: Annotated[
        str | None,
        arg(help="in place of the animator's own: 'python run.py {source} {driver} {out}', where {out} is a folder"),
    ] = None,
    size: Annotated[int, arg(help="side of the stored pictures, pixels")] = 512,
    moments: Annotated[int, arg(help="frames that are taken of a driving video, evenly over it")] = 8,
    held_out: Annotated[float, arg(help="share of people to validate on, and again to test on")] = 0.05,
    limit: Annotated[float, arg(help="seconds that a program may take for a driver")] = 600.0,
    retries: Annotated[int, arg(help="calls after the first, for drivers without a result")] = 1,
    gpus: Annotated[tuple[str, ...], arg(help="for the workers in turn, as CUDA_VISIBLE_DEVICES names them")] = (),
    model: Annotated[
        Path | None, arg(help="MediaPipe's face_landmarker.task; default: I4D_ASSETS, or the cache")
    ] = None,
    preset: Annotated[
        str, arg(help="whose world the animator world renders, or --frontal's network learns by; auto as in run")
    ] = "auto",
    world: Annotated[Literal["procedural", "ict"], arg(help="its heads")] = "procedural",
    pairs: Annotated[int, arg(help="of each person of the world")] = 8,
    views: Annotated[int, arg(help="of each pair of the world; all but the driver's are true")] = 1,
    frontal: Annotated[
        bool,
        arg(
            help="the animator sees source and driver from the front, for lifted supervision: rendered so, or photos turned by the "
            "lifting network of --preset, which is trained first where there is none"
        ),
    ] = False,
    runs: Annotated[Path, arg(help="where that network is kept, as in run")] = Path("runs"),
    spoil: Annotated[
        tuple[str, ...], arg(help="NAME=STRENGTH of swim, drift, flicker, parallax, 0 to 1; default: 0.5 each")
    ] = (),
    workers: Annotated[int, arg(help="sources animated at once")] = 1,
    retry: Annotated[bool, arg(help="tries again what failed in an earlier call")] = False,
    complete: Annotated[
        bool, arg(help="a pair that failed is exit code 1; else only a store without any pair is")
    ] = False,
) -> None:
    """Makes pairs (source, driver, animated picture) by a 2D animator into a store. Goes on where it was stopped."""
    from i4d_bench.data.teacher.pairs import make as job

    if workers < 1:
        raise UserError(f"--workers {workers}: there must be one")
    experiment = None
    if animator == "world" or frontal:
        from i4d_bench.config import presets
        from i4d_bench.jobs import run as jobs

        experiment = presets.preset(jobs.default_preset() if preset == "auto" else preset)
        experiment = dataclasses.replace(experiment, world=dataclasses.replace(experiment.world, kind=world))
    if animator == "world":
        assert experiment is not None
        from i4d_bench.data.teacher.spoils import Spoil
        from i4d_bench.data.teacher.world import WorldMaker

        maker = WorldMaker(experiment.world, Spoil.of(spoil), pairs, views, frontal)
    else:
        from i4d_bench.data.teacher.animators import command as program_animator
        from i4d_bench.data.teacher.photos import PhotoMaker

        if sources is None or drivers is None:
            raise UserError(f"--animator {animator} needs --sources and --drivers")
        if animator == "warp":
            from i4d_bench.data.teacher.warp import Warp

            animates = Warp(model)
        else:
            animates = program_animator(animator, program, command, limit=limit, retries=retries, gpus=gpus)
        maker = PhotoMaker(animates, sources, drivers, size, moments, held_out, model)
        if experiment is not None:
            from i4d_bench.jobs.bench import lifting_network
            from i4d_bench.train.frontal import Frontal

            maker.jobs()  # mistakes first: the network may train for hours
            network = lifting_network(experiment, outputs.folder(runs))
            maker = dataclasses.replace(maker, animator=Frontal(animates, network, experiment.model, model))
    sys.exit(job(maker, out, workers, retry, complete))


@app.command
def animate(
    source: Annotated[Path, arg(help="a photo of a face, or a data set (its first test person)")],
    driving: Annotated[Path, arg(help="a video of a face, or a data set")],
    run: Annotated[Path, arg(help="a run's folder under runs/, or a pack")],
    out: Annotated[Path, arg(help=".mp4, .webm, or .ply for the avatar at the driver's first frame")],
    model: Annotated[
        Path | None, arg(help="MediaPipe's face_landmarker.task; default: I4D_ASSETS, or the cache")
    ] = None,
    max_frames: Annotated[int | None, arg(help="of the driver, at most; default: all")] = None,
    designs: Annotated[tuple[str, ...], arg(help="where the run's design lies now, if it is yours and was moved")] = (),
    driver: Annotated[Path | None, arg(help="where the run's encoder lies now, if it was moved")] = None,
    camera: Annotated[
        str,
        arg(
            help="driver: its own, and so the driver's pose; fixed: from the front; turntable: once around in the film; or a "
            "path, a .json of [yaw, pitch] or [yaw, pitch, distance] at even times"
        ),
    ] = "driver",
) -> None:
    """Animates one photo with a trained design."""
    from i4d_bench.play.animate import animate as job

    _known(designs)
    job(source, driving, run, out, model=model, max_frames=max_frames, driver=driver, camera=camera)


@app.command
def view(
    run: Annotated[
        tuple[Path, ...], arg(help="runs' folders under runs/ or packs, of one experiment; or a folder of several runs")
    ],
    source: Annotated[
        Path | None, arg(help="a photo of a face, or a data set; default: the run's own test people")
    ] = None,
    driving: Annotated[Path | None, arg(help="a video of a face, or a data set; default: a built-in motion")] = None,
    host: Annotated[
        str, arg(help="the address that is served; 0.0.0.0: to every machine that reaches this one")
    ] = "127.0.0.1",
    port: Annotated[int, arg(help="of the page; where it is taken, the next free one")] = 8080,
    model: Annotated[
        Path | None, arg(help="MediaPipe's face_landmarker.task; default: I4D_ASSETS, or the cache")
    ] = None,
    designs: Annotated[
        tuple[str, ...], arg(help="where the runs' designs lie now, if they are yours and were moved")
    ] = (),
    driver: Annotated[Path | None, arg(help="where the runs' encoder lies now, if it was moved")] = None,
) -> None:
    """Shows trained designs in a browser, side by side: camera, the 52 expression sliders, a clip, and the speed of each stage."""
    from i4d_bench.play.viewer import view as job

    _known(designs)
    sys.exit(job(run, source, driving, host, port, model, driver))


@app.command
def export(
    run: Annotated[Path, arg(help="a run's folder under runs/, or a pack")],
    out: Annotated[Path, arg(help="the .onnx file")],
    source: Annotated[
        Path | None, arg(help="a photo of a face, or a data set (its first test person); default: the run's own first")
    ] = None,
    model: Annotated[
        Path | None, arg(help="MediaPipe's face_landmarker.task; default: I4D_ASSETS, or the cache")
    ] = None,
    designs: Annotated[tuple[str, ...], arg(help="where the run's design lies now, if it is yours and was moved")] = (),
    driver: Annotated[Path | None, arg(help="where the run's encoder lies now, if it was moved")] = None,
) -> None:
    """Writes one person's avatar, driver and fusion, as ONNX, and checks it against torch."""
    from i4d_bench.play.export import export as job

    _known(designs)
    job(run, out, source, model, driver)


@app.command
def pack(
    run: Annotated[Positional[Path], arg(help="a run's folder under runs/")],
    out: Annotated[Path, arg(help="the folder that is passed on: run.json and avatar.safetensors")],
) -> None:
    """Packs a trained run to be passed on; `animate`, `view` and `export` take the folder as --run."""
    from i4d_bench.play.pack import pack as job

    job(run, out)


@app.command
def speed(
    designs: Counted = (),
    modes: Annotated[
        tuple[str, ...],
        arg(
            help="eager, compiled, triton, triton+graph (which brings triton+graph+ahead along); default: all that run here"
        ),
    ] = (),
    gaussians: Annotated[int | None, arg(help="at the base point")] = None,
    resolution: Annotated[int | None, arg(help="at the base point, pixels")] = None,
    base_only: Annotated[bool, arg(help="the base point alone, no axes")] = False,
    frames: Annotated[int | None, arg(help="calls per row")] = None,
    avatars: Annotated[
        tuple[Path, ...], arg(help="trained ones that rasterisers draw, too: .ply, or a report's runs/RUN_ID.splats")
    ] = (),
    reports: Annotated[Path, arg(help="where the report folder goes")] = Path("reports"),
) -> None:
    """Times kernels, stages and whole frames in every mode, and writes tables and figures. Goes on where it was stopped.

    Exit code 1: a row gave wrong output, or failed.
    """
    from i4d_bench.jobs.speed import main as job

    given = {"designs": _known(designs), "modes": modes, "gaussians": gaussians, "resolution": resolution, "frames": frames,
             "avatars": avatars}  # fmt: skip
    sys.exit(job(reports, {k: v for k, v in given.items() if v}, base_only))


@app.command
def scaling(
    out: Annotated[Path, arg(help="the times, JSON; those by other numbers of GPUs in it stay, and are compared with")],
    preset: Annotated[str, arg(help="whose steps; auto as in run")] = "auto",
    design: Annotated[str, arg(help="what is trained: a name, your file or module")] = "local_adaln",
    steps: Annotated[int, arg(help="timed of every stage")] = 10,
    batch: Annotated[int | None, arg(help="people of a step, all GPUs' together; default: the stage's own")] = None,
    set: Annotated[tuple[str, ...], arg(help="FIELD=VALUE as in run")] = (),
) -> None:
    """Times training steps on made-up pictures, and says how close several GPUs (under torchrun) come to linear."""
    from i4d_bench.config import presets
    from i4d_bench.config.override import override
    from i4d_bench.jobs.run import default_preset
    from i4d_bench.jobs.scaling import scaling as job
    from i4d_bench.train import distributed

    with distributed.joined():
        designs = _known((design,))
        if len(designs) != 1 or designs[0] == "all":
            raise UserError(f"--design {design}: name one design")
        experiment = presets.preset(default_preset() if preset == "auto" else preset)
        job(override(experiment, list(set)), designs[0], steps, out, batch)


@app.command
def compare(
    base: Annotated[Positional[Path], arg(help="the run that stands")],
    new: Annotated[Positional[Path], arg(help="the run that is judged")],
    threshold: Annotated[float, arg(help="a row may take so many times as long as before")] = 1.10,
    json: Json = False,
) -> None:
    """Compares two stored speed runs of one machine: --benchmark-json files or speed.json.

    Exit code 1: a row became wrong, vanished or lost its time, or one that the device bounds (a kernel, a CUDA graph) is slower.
    """
    from i4d_bench.speed.compare import main as job

    sys.exit(job(base, new, threshold, json))


@app.command
def report(folder: Annotated[Positional[Path], arg(help="a folder under reports/")], baseline: Baseline = None) -> None:
    """Rebuilds a report folder's tables, figures and page from its stored results alone."""
    from i4d_bench.report import build_report

    build_report(folder, baseline)


@app.command
def submit(
    folder: Annotated[Positional[Path], arg(help="a folder under reports/, of your runs")],
    out: Annotated[Path, arg(help="the file that is made, .zip")],
    name: Annotated[str, arg(help="whose results these are")],
    url: Annotated[str, arg(help="where your code or paper is")] = "",
    runs: Annotated[Path, arg(help="where the checkpoints lie")] = Path("runs"),
) -> None:
    """Packs results for others: records, scores, the pictures they are of, and the hashes of all that made them."""
    from i4d_bench.jobs.submission import submit as job

    job(folder, runs, out, name, url)


@app.command
def validate(
    file: Annotated[Positional[Path], arg(help="what `submit` made")],
    keep: Annotated[bool, arg(help="writes what was found beside the file, where the site finds it")] = False,
) -> None:
    """Checks a submission: schema, splits, completeness, hashes; and scores its pictures again. Exit code 1 where one is wrong."""
    from i4d_bench.jobs.submission import validate as job

    sys.exit(job(file, keep))


@app.command
def site(
    reports: Annotated[Path, arg(help="where the report folders are")] = Path("reports/published"),
    out: Annotated[Path, arg(help="the site's folder, made anew")] = Path("site"),
    submitted: Annotated[Path | None, arg(help="a folder of others' submissions, checked by `validate --keep`")] = None,
) -> None:
    """Builds a web site of all reports from their stored results: static files that also open from a disk."""
    from i4d_bench.report.web.site import write

    write(reports, out, submitted)


@app.command
def costs(
    designs: Counted = (),
    reports: Annotated[Path, arg(help="where costs.csv goes")] = Path("reports/published"),
) -> None:
    """Counts parameters, FLOPs and activations of designs at the paper's scale, and stores them in costs.csv."""
    from i4d_bench.report import designs as page
    from i4d_bench.speed.costs import write_costs

    write_costs(reports, _known(designs))
    stored = page.read_costs(reports)
    print(page.table(stored, page.baseline_of(stored)))


@app.command
def docs(
    designs: Foreign = (),
    reports: Annotated[Path, arg(help="where costs.csv and speed reports are")] = Path("reports/published"),
    out: Annotated[Path, arg(help="the page, Markdown")] = Path("docs/designs.md"),
    baseline: Baseline = None,
) -> None:
    """Writes the page of all designs from their docstrings and the stored costs and speeds."""
    from i4d_bench.report import designs as page

    _known(designs)
    page.write_page(reports, out, baseline)


@app.command
def assets(json: Json = False) -> None:
    """Says which optional files this machine has, checks them, and where to get the others."""
    from i4d_bench.doctor import list_assets as job

    sys.exit(job(json))


@app.command
def convert(
    what: Annotated[Positional[Literal["ict", "mobileface"]], arg(help="which file is made")],
    checkout: Annotated[Positional[Path], arg(help="the folder that `git clone` made of the upstream repository")],
) -> None:
    """Makes an optional file of its upstream repository, at the place where `i4d-bench assets` looks for it."""
    from i4d_bench.assets import ICT, MOBILEFACE, MOBILEFACE_GRAPH, place

    if what == "ict":
        from i4d_bench.heads.ict_objs import convert as job

        print(job(checkout, place(ICT)))
    else:
        from i4d_bench.metrics.mxnet_params import convert_mobileface

        convert_mobileface(checkout, place(MOBILEFACE), place(MOBILEFACE_GRAPH))
        print(place(MOBILEFACE))


@app.command
def doctor(json: Json = False) -> None:
    """Says what this machine can run, and why not the rest. Exit code 1: not even the main job."""
    from i4d_bench.doctor import doctor as job

    sys.exit(job(json))


@app.command(name="list")
def list_(
    what: Annotated[Positional[Literal["designs", "ablations", "presets", "metrics"]], arg(help="which of them")],
    designs: Foreign = (),
    json: Json = False,
) -> None:
    """Lists designs, ablations, presets or metrics."""
    from i4d_bench.listing import listing

    _known(designs)
    rows = listing(what)
    if json:
        print(dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['name']:28} {row['kind']:11} {row['text']}")


def main() -> None:
    print_anything()
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except UserError as e:
        sys.exit(_fail(f"i4d-bench: {e}", 2))
    except RuntimeError as e:
        from kernels import Unsupported  # not above: it takes torch, which is there where this can happen

        if not isinstance(e, Unsupported):
            raise
        sys.exit(_fail(f"i4d-bench: {e}", 2))
    except BrokenPipeError:  # `i4d-bench … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(_fail("i4d-bench: stopped; the same command goes on from here", 130))


def _known(designs: tuple[str, ...]) -> tuple[str, ...]:
    """Designs by their names, those of files and modules among them (`variants.load`). Raises UserError."""
    from variants import load

    for entry in designs:
        if not entry.endswith(".py") and {".", os.sep} & set(entry) and Path(entry).is_file():
            raise UserError(f"{entry} is no file of a design, whose name ends in .py")
    return load(designs)


def _run() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"i4d-bench {__version__}")
        return
    siblings.check()
    app.cli(
        prog="i4d-bench",
        description="How should expression be fused with a 3D Gaussian head? Measured. `--version` says which release this is.",
    )


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
