"""What all tests share: a cache of their own, checked annotations, skips with a reason, and a tiny lifted identity."""

from __future__ import annotations

import contextlib
import os
import sys

import jaxtyping
import numba
import pytest
import torch
from helpers.annotations import check_annotations
from helpers.caches import close_cache, open_cache
from helpers.heads import TinyHead
from helpers.interpreter import quicken
from helpers.processes import start_warm
from helpers.tracing import untraced
from matplotlib.figure import Figure

if "--benchmark-only" not in sys.argv:  # checks take time, and would be timed
    check_annotations()
if sys.platform == "linux":
    start_warm()
Figure.savefig = untraced(Figure.savefig)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers do not fight for cores, nor does what they start
    numba.set_num_threads(1)
    torch.set_num_threads(1)  # after numba, whose begin undoes what torch was told
if not torch.cuda.is_available():  # kernels then run in Triton's interpreter (fp32 and fp16: its bf16 is wrong)
    os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ImportError):  # there is no Triton for this system
        quicken()


def pytest_addoption(parser):
    parser.addoption(
        "--designs",
        action="append",
        default=[],
        metavar="DESIGN",
        help="run the contract and the benchmarks over this one alone: a name, your file or module; may be given again",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """Workers have it from their start: numpy reads it as it begins, and its threads would wait for cores longer than they work."""
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # xdist's workers have their parent's
        open_cache()
    from helpers.designs import CHOSEN

    import variants  # checked from here on, as all of ours
    from i4d_bench.types import UserError

    try:
        CHOSEN.extend(variants.load(config.getoption("designs")))
    except UserError as e:
        raise pytest.UsageError(str(e)) from e


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        close_cache()


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker("unchecked"):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_collection_modifyitems(config, items):
    """GPU, SLURM and asset tests skip with their reason where they cannot run; SLURM's, which take minutes, where nobody asks."""
    from helpers import slurm

    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
        if item.get_closest_marker("assets") and not os.environ.get("I4D_ASSETS"):
            item.add_marker(pytest.mark.skip(reason="needs the real assets (set I4D_ASSETS)"))
        if item.get_closest_marker("slurm"):
            why = slurm.missing() or ("" if "slurm" in config.option.markexpr else "takes minutes: pytest -m slurm")
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def smoke_frames():
    """The smoke preset's world, rendered."""
    from i4d_bench.config import presets
    from i4d_bench.data import synthetic
    from i4d_bench.data.frames import open_frames

    return open_frames(synthetic.rendered(presets.smoke().world))


@pytest.fixture(scope="session")
def tiny():
    """identity(batch), code(batch, frames=1): a small lifted identity (planes differ per person) and random driving codes."""
    from i4d_bench.config.presets import smoke
    from i4d_bench.model.avatar import Backbone
    from i4d_bench.types import FlameCode, Identity, MotionCode

    class Tiny:
        grid = 8

        def identity(self, batch=2, device="cpu", seed=0) -> Identity:
            torch.manual_seed(seed)
            backbone = Backbone(smoke().model).to(device)
            images = torch.rand(batch, 3, 32, 32).to(device)
            return backbone.lift(images, self.grid, TinyHead(device))

        def code(self, rows=2, device="cpu", seed=1) -> MotionCode:
            g = torch.Generator().manual_seed(seed)
            rand = lambda *s: torch.randn(*s, generator=g).to(device)  # noqa: E731
            return MotionCode(
                rand(rows, 512), FlameCode(rand(1, 4).expand(rows, -1), rand(rows, 6), 0.2 * rand(rows, 15))
            )

    return Tiny()


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder outside of the repository, in which a command is started; designs loaded from it are forgotten afterwards."""
    import variants
    from variants import base

    variants.names()
    for place in ("_REGISTRY", "_GIVEN"):
        monkeypatch.setattr(base, place, dict(getattr(base, place)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
