"""What users are told. Imports nothing, so that the command line can say it at once."""


class UserError(Exception):
    """A mistake that the user can mend. The command line prints its one sentence and exits with 2."""
