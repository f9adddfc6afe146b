"""What users are told. Imports nothing of weight, so that the command line can say it at once."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can mend. The command line prints its one sentence and exits with 2."""


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Around imports of an optional extra's packages. what: that needs them. Raises UserError where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise UserError(f"{what} needs {e.name}: pip install 'i4d-bench[{name}]'") from e
