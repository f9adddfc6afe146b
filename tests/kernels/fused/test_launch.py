"""Kernels run in the first way that the card has shared memory for, and are right in every way there is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
import triton
import triton.language as tl

from kernels import Unsupported
from kernels.cases import case
from kernels.fused import cross_attention_backward, gradients, launch, local_fusion
from kernels.fused.launch import Card, card


class Kernel:
    """In a kernel's place: what it would ask for by its TILE, and how it was run."""

    __name__ = "stub"

    def __init__(self):
        self.ran = []

    def fn(self):
        pass

    def warmup(self, *args, grid, **meta):
        return SimpleNamespace(metadata=SimpleNamespace(shared=1024 * meta["TILE"]))

    def __getitem__(self, grid):
        return lambda *args, **meta: self.ran.append(meta)


@pytest.fixture
def small(monkeypatch):
    """A card that has 99 KB."""
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(launch, "card", lambda: Card(89, 4, 99 * 1024))


def test_the_first_way_that_fits_runs(small):
    kernel, ways = Kernel(), [[{"TILE": 128}], [{"TILE": 64, "FIRST": k} for k in (0, 64)], [{"TILE": 32}]]
    launch.launch(kernel, (1,), ways, torch.zeros(1), D=48)
    assert kernel.ran == [{"D": 48, "TILE": 64, "FIRST": 0}, {"D": 48, "TILE": 64, "FIRST": 64}]


def test_where_nothing_fits_one_sentence_says_what_and_why(small):
    kernel = Kernel()
    with pytest.raises(
        Unsupported, match=r"needs 100 KB of shared memory at these widths, and this GPU \(sm_89\) has 99"
    ):
        launch.launch(kernel, (1,), [[{"TILE": 128}], [{"TILE": 100}]], torch.zeros(1))
    assert not kernel.ran


class Turing:
    """Triton's driver on an RTX 20."""

    utils = SimpleNamespace(get_device_properties=lambda device: {"multiprocessor_count": 72, "max_shared_mem": 65536})

    def get_current_device(self):
        return 0

    def get_current_target(self):
        return SimpleNamespace(arch=75)


def test_a_gpu_older_than_ampere_is_refused(monkeypatch):
    monkeypatch.setattr(launch, "driver", SimpleNamespace(active=Turing()))
    with pytest.raises(Unsupported, match=r"8\.0 \(Ampere\) or newer, and this one has 7\.5"):
        card()


class OnCard(torch.Tensor):
    is_cuda = True


class Dispatched:
    """In a kernel's place: how often it was dispatched, and what it was launched with once it was compiled."""

    arg_names = ("x", "n", "SHAPE", "P", "ROW", "TILE")

    def __init__(self):
        self.dispatched, self.ran = 0, []

    def fn(self):
        pass

    def __getitem__(self, grid):
        def dispatch(*args, **constants):
            self.dispatched += 1
            return Ready(self.ran)

        return dispatch


class Ready:
    def __init__(self, ran):
        self.ran = ran

    def __getitem__(self, grid):
        return lambda *args: self.ran.append((grid, *args[1:]))


def test_a_kernel_is_dispatched_once_for_all_that_triton_compiles_for(monkeypatch):
    """Types, addresses' multiples of 16, numbers, constants, cards. Constants are given by name, and before those by place."""
    here = [0]
    monkeypatch.setattr(launch, "_compiled", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: here[0])
    kernel, x = Dispatched(), torch.zeros(16).as_subclass(OnCard)

    def again(x=x, n=3, shape=(4, 1), p="ieee", **more):
        launch.run_kernel(kernel, (2,), x, n, shape, p, **{"TILE": 64, "ROW": 12, "num_warps": 1} | more)

    other = [
        {},
        {"x": x[1:]},
        {"x": x.half()},
        {"n": 4},
        {"shape": (1, 4)},
        {"p": "tf32"},
        {"TILE": 32},
        {"num_warps": 2},
    ]
    for count, what in enumerate(other, 1):
        again(**what)
        assert kernel.dispatched == count
    assert not kernel.ran
    for what in (*other, {"x": x[4:]}):
        again(**what)
    assert kernel.dispatched == len(other) and kernel.ran[0] == kernel.ran[-1] == ((2, 1, 1), 3, (4, 1), "ieee", 12, 64)
    here[0] = 1
    again()
    assert kernel.dispatched == len(other) + 1


@triton.jit
def _times(x, y, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, (tl.load(x + i, mask=i < n, other=0.0) * factor).to(y.dtype.element_ty), mask=i < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("first", [0, 1, 8])
def test_a_launch_is_the_same_every_time(dtype, first):
    """Where addresses are multiples of 16 and not, for numbers that Triton compiles for and others."""
    x = torch.arange(99, device=DEVICE, dtype=dtype)[first:]
    for n in (1, 16, 17, 64, 1):
        for factor in (1, 2, 0.5, 1):
            y = torch.full_like(x, -1)
            launch.run_kernel(_times, (3,), x, y, n, factor, BLOCK=32)
            assert torch.equal(y, torch.where(torch.arange(len(x), device=DEVICE) < n, x * factor, -1))


def only(monkeypatch, wanted) -> list:
    """Of several ways to run those alone of which `wanted` says so; returned is what was asked about."""
    asked = []

    def fits(kernel, grid, way, *args, **meta):
        asked.append((kernel.fn.__name__, way))
        return wanted(kernel.fn.__name__, way)

    monkeypatch.setattr(launch, "fits", fits)
    monkeypatch.setattr(launch, "_chosen", {})
    return asked


@pytest.mark.parametrize("pieces", gradients.PIECES)
@pytest.mark.parametrize("storage", [torch.float32, *(HALVES if DEVICE == "cuda" else [])], ids=str)
@pytest.mark.parametrize("name", ["local_fusion", "spatial_fusion"])
def test_a_hidden_layer_in_pieces(name, storage, pieces, monkeypatch):
    asked = only(monkeypatch, lambda kernel, way: way[0].get("UNITS", 128 // pieces) == 128 // pieces)
    agree(case(name), case(name).inputs(37, 1, 2, storage, DEVICE, hidden=80))
    assert any(len(way) > 1 for _, way in asked)


@pytest.mark.parametrize("name", ["decode", "local_fusion", "spatial_fusion"])
def test_weights_that_are_read_again_for_every_tile(name, monkeypatch):
    asked = only(monkeypatch, lambda kernel, way: not way[0].get("KEEP"))
    agree(case(name), case(name).inputs(130, device=DEVICE))
    assert any(way == [local_fusion.AGAIN] for _, way in asked)


def test_attention_whose_tokens_do_not_fit_together(monkeypatch):
    """Then by rows and by tokens, and the network between in pieces."""

    def wanted(kernel, way):
        return (
            kernel != "_attention" and way[0].get("UNITS", 64) == 64 and (kernel[:3] != "_by" or way[0]["TILE"] == 32)
        )

    asked = only(monkeypatch, wanted)
    agree(case("cross_attention"), case("cross_attention").inputs(40, 1, 2, device=DEVICE, tokens=4, layers=1, heads=2))
    assert {kernel for kernel, way in asked if way == cross_attention_backward.WAYS[1]} == {"_by_rows", "_by_tokens"}
