"""Kernels compile for cards that are not there, and launches are what the card's shared memory allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from helpers import ROOT

pytest.importorskip("triton")
from kernels import compile as module

CODE = """
import json, sys
from kernels.check import PROBLEMS
from kernels.compile import launches

decode = next(p for p in PROBLEMS if p.case.name == "decode")
print(json.dumps([launches(arch, "fp32", decode) for arch in sys.argv[1:]]))
"""


def compiled(tmp_path, *words: str) -> subprocess.CompletedProcess:
    """In a process of its own, whose Triton compiles instead of interpreting."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=env)


def test_a_hidden_layer_passes_in_pieces_where_the_card_is_small(tmp_path):
    done = compiled(tmp_path, "-c", CODE, "sm_89", "sm_90")
    assert not done.returncode, done.stderr
    small, large = json.loads(done.stdout)
    backward = "kernels.fused.local_fusion_backward._phi"
    assert Counter(kernel for kernel, _ in small)[backward] == 2
    assert Counter(kernel for kernel, _ in large)[backward] == 1
    most = {kernel: shared for kernel, shared in large}
    assert all(shared <= 99 * 1024 for _, shared in small) and 99 * 1024 < most[backward] <= 227 * 1024


def test_every_op_in_every_type_is_compiled_once_for_every_card():
    of_one_card = len(list(module.tasks(["sm_89"], module.KINDS)))
    assert of_one_card == len(module.KINDS) * len(module.PROBLEMS) + 1  # the rasteriser has no features
    assert len(list(module.tasks(module.SHARED, module.KINDS))) == 5 * of_one_card


def test_a_card_that_is_not_known_is_named(capsys):
    assert module.main(["sm_89", "sm_99"]) == 2
    assert "sm_99 is neither a card (sm_80, sm_86, sm_89, sm_90, sm_120) nor a kind" in capsys.readouterr().err
