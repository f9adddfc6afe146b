"""One function per preset returns the whole experiment. The command line picks one and overrides fields; the full
configuration travels with every result."""

from __future__ import annotations

from dataclasses import replace

from i4d_bench.config.ablations import STARTS
from i4d_bench.config.experiment import Evaluate, Experiment, Loss, Model, Stage, Train, World
from i4d_bench.config.nearest import nearest
from i4d_bench.types import UserError
from variants import names
from variants.base import defaults

QUICK = {name: {"delta_scale": 1.0, "w_std": 0.14} for name in ("local_adaln", "flame_adaln")}
"""The published start (0.01, 0.02) is for long training."""
PUBLISHED = {"delta_scale": 0.01, "w_std": 0.02}
"""PAPER §1."""
TUNED = {
    "flame_adaln": (1e-3, "own"),
    "flame_blendshapes": (3e-4, "silent"),
    "flame_residual": (3e-3, "silent"),
    "flame_uv": (1e-4, "silent"),
    "flame_vertices": (3e-3, "silent"),
    "global_cross_attention": (1e-2, "silent"),
    "global_interleaved_attention": (3e-4, "silent"),
    "global_joint_attention": (3e-4, "own"),
    "global_latent_attention": (1e-3, "own"),
    "global_triplane_attention": (1e-3, "silent"),
    "local_adaln": (1e-3, "own"),
    "local_bilinear": (1e-2, "silent"),
    "local_blendshapes": (1e-3, "own"),
    "local_film": (1e-3, "own"),
    "local_mlp": (1e-3, "own"),
    "local_nobasis": (1e-3, "silent"),
    "local_part_blendshapes": (3e-3, "silent"),
    "local_spatial": (1e-3, "own"),
}
"""Learning rate and start (`ablations.STARTS`): the best of the ablation `finals` on the preset gpu, by validation people
(reports/published/ablation-finals-gpu-*: designs with a parametric head on H200s, the others on H100s)."""
ON_PLANES = ("global_triplane_attention", "global_interleaved_attention", "global_joint_attention")


def cpu() -> Experiment:
    """Two cores, no GPU: two minutes a design. Images trained, rendered and scored at 64², Gaussians dense in the face."""
    return Experiment(
        preset="cpu",
        world=World(),
        model=Model(stem=24, widths=(32, 64, 96), grid=24, focus=0.45),
        train=Train(warmup=(Stage(400, 64, 24, 8, 4),), stages=(Stage(500, 64, 24, 8, 4),), lr_fusion=2e-3),
        evaluate=Evaluate(),
        overrides=QUICK
        | {name: {"dim": 128, "tokens": 8} for name in ON_PLANES}
        | {"global_latent_attention": {"dim": 128}, "flame_uv": {"width": 16, "resolution": 32}}
        | {
            "flame_vertices": {"max_vertices": 320}
        },  # half of what is lifted; all 5,023 would be nine times the others' Gaussians
    )


def gpu() -> Experiment:
    """One data-centre GPU: 128², 16,384 Gaussians and a back sheet, minutes a design."""
    return Experiment(
        preset="gpu",
        world=World(resolution=128, train_identities=1200, val_identities=24, test_identities=96),
        model=Model(size=128, stem=48, widths=(96, 192, 256), blocks=4, grid=128, bf16=True),
        train=Train(
            warmup=(Stage(600, 128, 128, 16, 4),),
            stages=(Stage(3600, 128, 128, 16, 4),),
            loss=Loss(lpips=0.5, ssim=0.2),
            validate_every=200,
            encoder_steps=3000,
        ),
        driver="image",
        evaluate=Evaluate(batch=32, reader_steps=1000, identity=("dlib", "mobileface")),
        overrides={name: QUICK.get(name, {}) | {"lr": lr} | STARTS[start] for name, (lr, start) in TUNED.items()},
    )


def untuned(experiment: Experiment) -> Experiment:
    """Every design with the learning rate and the start that are its own by default, in place of a search's."""
    searched = {"lr"}.union(*STARTS.values())
    kept = {name: {k: v for k, v in own.items() if k not in searched} for name, own in experiment.overrides.items()}
    return replace(experiment, overrides=kept)


def smoke() -> Experiment:
    """The whole pipeline in seconds, for tests; its numbers mean nothing."""
    stage = Stage(3, 32, 16, 2, 2)
    return Experiment(
        preset="smoke",
        world=World(resolution=32, train_identities=4, val_identities=2, test_identities=3, expressions=2, views=2),
        model=Model(size=32, stem=8, widths=(8, 16, 16), blocks=1, grid=16),
        train=Train(warmup=(stage,), stages=(stage,), lr_steps=2, validate_every=2, encoder_steps=3),
        evaluate=Evaluate(lpips=(), identity=(), reader_steps=3, batch=4),
        overrides={name: {"dim": 32, "tokens": 4} for name in ON_PLANES}
        | {"global_latent_attention": {"dim": 32}, "flame_uv": {"width": 8, "resolution": 16}},
    )


def paper() -> Experiment:
    """The paper's scale and constants, for --teacher: 512², planes 256², 199,374 Gaussians, batch 32.

    Grid 424: 179,776 Gaussians in front and 19,598 behind. The paper says how its resolution and batch are, but not how long it
    trained: here two epochs of its 480,000 pairs at each of four resolutions. A sample is the source as itself and a pair.
    """
    steps = 2 * 480_000 // 32
    grids = {64: 53, 128: 106, 256: 212, 512: 424}
    return Experiment(
        preset="paper",
        world=World(resolution=512, train_identities=120, val_identities=24, test_identities=48),
        model=Model(
            size=512, planes=256, stem=128, widths=(128, 256, 1024), blocks=3, motion_basis=48, grid=424, bf16=True
        ),
        train=Train(
            warmup=(Stage(2000, 64, 53, 32, 1),),
            stages=tuple(Stage(steps, resolution, grid, 32, 2) for resolution, grid in grids.items()),
            lr=1e-4,
            lr_fusion=1e-4,
            accumulate=4,
            loss=Loss(
                l1=1.0, regions=0.1, lpips=1.0, ssim=0.0, delta=0.001, identity=0.1, identity_network="dlib",
                adversarial=0.025, adversarial_from=0.5,
            ),
            validate_every=2000,
            checkpoint_seconds=300.0,
            encoder_steps=3000,
        ),
        driver="image",
        evaluate=Evaluate(batch=8, reader_steps=1000, identity=("mobileface",)),
        overrides={name: own for name in names() if (own := _published(name))},
    )  # fmt: skip


def _published(design: str) -> dict[str, float]:
    """Those of the paper's constants that are settings of this design."""
    return {k: v for k, v in PUBLISHED.items() if k in defaults(design)}


PRESETS = {"cpu": cpu, "gpu": gpu, "paper": paper, "smoke": smoke}


def preset(name: str) -> Experiment:
    """Raises UserError with the nearest names."""
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; did you mean {nearest(name, PRESETS)}?")
    return PRESETS[name]()
