"""The image installs what is pinned, and what it copies is there. That it builds is tried where there is Docker (docker.yml)."""

from __future__ import annotations

import re
import tomllib

from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_everything_that_it_installs_is_pinned_to_a_version_that_will_do():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r'-e "\.\[([\w,]+)\]"', IMAGE).group(1).split(",")
    wanted = [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    lines = (ROOT / "docker" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(name): version for name, _, version in (x.partition("==") for x in lines if "==" in x)}
    for requirement in map(Requirement, wanted):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_what_it_copies_is_there_and_not_ignored():
    kept = [x[1:] for x in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if x.startswith("!")]
    copied = [source for line in re.findall(r"^COPY (.*)$", IMAGE, re.MULTILINE) for source in line.split()[:-1]]
    assert copied and all((ROOT / source).exists() and source in kept for source in copied)
