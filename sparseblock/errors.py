"""The one exception that sparseblock raises for wrong input."""


class SparseBlockError(ValueError):
    """Wrong input at a public boundary.

    The message is one line: what was wrong, the values, the rule, what to do. Programming errors inside the library
    are never reported as this.
    """
