"""What tests of jobs share: a machine without a GPU, reports without figures, and runs without films."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn(request):
    """Most runs' figures are looked at by nobody, and take seconds. A test file whose are says `DRAWN = True`."""
    from i4d_bench.report import figures

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            patch.setattr(figures, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def unfilmed(request):
    """Nor are films. Files with `FILMED = True` have some that test_film has not, whose runs are all of one kind."""
    from i4d_bench.jobs import run

    whole = run.plan

    def plan(*args, film: bool = False, **more):
        return whole(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "FILMED", False):
            patch.setattr(run, "plan", plan)
        yield
