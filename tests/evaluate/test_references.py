"""What true frames, the photo itself, the mean expression and other people score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from i4d_bench.data.splits import SETS, SPLITS, other_view, own_expressions, split_of, triples
from i4d_bench.drivers.driver import Driver
from i4d_bench.evaluate.references import MEAN, NAMES, OTHERS, STILL, TRUE, references, telling
from i4d_bench.loader import Loader
from i4d_bench.metrics.consistency import identity_leakage, reprojection_error
from i4d_bench.metrics.distances import Reading
from i4d_bench.metrics.reader import Reader

CPU = torch.device("cpu")


class Colours:
    """Takes a picture's mean colours for its person."""

    name = "colours"

    def embed(self, images, landmarks, check=True):
        return F.normalize(images.mean((1, 2)) - 0.5, dim=-1)


class Perfect(Reader):
    """Knows the truth of the frames that it is shown, in their order."""

    def __init__(self, frames, index):
        super().__init__(frames.resolution)
        self.frames, self.index = frames, list(index)

    def read(self, images):
        mine, self.index = np.array(self.index[: len(images)]), self.index[len(images) :]
        f = self.frames
        return Reading(*(torch.from_numpy(a[mine]) for a in (f.coefficients, f.landmarks, f.viewmats[:, :3, :3])))


@pytest.fixture(scope="module")
def loader(smoke_frames):
    return Loader(smoke_frames, Driver("sliders", smoke_frames), CPU)


def test_the_truth_is_perfect_by_a_perfect_reader_and_the_mean_is_not(loader):
    frames = loader.frames
    read = [s for s in SETS if s != "novel"]
    order = np.concatenate([triples(frames, "test", s).target for s in read])
    found = references(loader, {"colours": Colours()}, Perfect(frames, order), batch=2)
    assert tuple(found) == NAMES and set(found[TRUE]) == set(SETS)
    mean = frames.coefficients[split_of(frames) == SPLITS.index("train")].mean(0)
    for s in read:
        assert found[TRUE][s]["aed_true"] == pytest.approx(0, abs=1e-6) and found[TRUE][s]["akd"] == 0
        assert found[TRUE][s]["apd"] == pytest.approx(0, abs=0.1)
        true = frames.coefficients[triples(frames, "test", s).driving]
        wanted = np.sqrt(np.square(true - mean).mean(1)).mean()
        assert found[MEAN][s]["aed_true"] == pytest.approx(wanted, rel=1e-4)
    assert "aed_true" not in found[TRUE]["novel"], "the reader learns on training views"


def test_faces_are_compared_with_the_true_frame(loader):
    found = references(loader, {"colours": Colours()}, batch=2)
    for s in SETS:
        assert found[TRUE][s]["csim_colours"] == pytest.approx(1) and found[OTHERS][s]["csim_colours"] < 1
    assert found[STILL]["recon"]["csim_colours"] == pytest.approx(1) and found[STILL]["self"]["csim_colours"] < 1
    assert found[MEAN]["self"] == {}


def test_the_truth_has_what_shading_and_the_network_leave(loader):
    """As the evaluator measures renders; the truth does not depend on who drives it."""
    frames, found = loader.frames, references(loader, {"colours": Colours()}, batch=2)[TRUE]
    novel = triples(frames, "test", "novel")
    a, b = (torch.from_numpy(i) for i in (novel.target, other_view(novel.target)))
    pictures, depth = (
        loader.photos(np.arange(len(frames)), frames.resolution).movedim(1, -1),
        torch.from_numpy(frames.depth),
    )
    error = reprojection_error(
        pictures[a], pictures[b], depth[a], depth[b], frames.camera(a.numpy()), frames.camera(b.numpy())
    )
    assert found["novel"]["reprojection"] == pytest.approx(float(error.mean()), rel=1e-5) and 0 < error.mean() < 0.2
    own = own_expressions(triples(frames, "test", "recon").source)
    embedded = torch.stack([Colours().embed(pictures[i], None) for i in own])
    assert found["recon"]["leak_colours"] == pytest.approx(float(identity_leakage(embedded).mean()), rel=1e-4)
    assert found["recon"]["leak_colours"] > 0 == found["cross"]["leak_driver"]
    assert not {"reprojection", "leak_colours", "leak_driver"} & {*found["self"], *found["extreme"]}


def test_a_network_to_which_people_are_alike_is_known():
    def found(same, other):
        return {name: {"self": {"csim_net": {STILL: same, OTHERS: other}.get(name, 1.0)}} for name in NAMES}

    assert telling(found(0.8, 0.3), "net") and not telling(found(0.975, 0.941), "net")
    assert telling(found(0.975, float("nan")), "net"), "one person: nobody can know"
    assert telling({name: {} for name in NAMES}, "net"), "cross pairs alone"
