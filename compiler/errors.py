"""Errors that users of the front end meet; each one names the operation and the user's line."""


class TilewrightError(Exception):
    """Base of every error that the front end raises on purpose."""


class DtypeError(TilewrightError, TypeError):
    """A dtype that the chip does not have, or a promotion that has no result there."""


class OperandError(TilewrightError, TypeError):
    """Operands or parameters that an operation does not accept."""


class UnsupportedError(TilewrightError):
    """Something that Tilewright, or the chip, does not do."""


class MissingError(UnsupportedError, AttributeError):
    """A function or method that does not exist (an AttributeError, so that `hasattr` works)."""


class ConcretizationError(TilewrightError, TypeError):
    """Python asked for the value of an array that is only known when the program runs."""


class LeakedTracerError(TilewrightError, RuntimeError):
    """A tracer was used outside of the trace that made it."""


class JaxprError(TilewrightError, AssertionError):
    """A jaxpr that is not well formed: a fault of the compiler, not of its user."""


class NonConcreteBooleanIndexError(TilewrightError, IndexError):
    """A mask as an index whose elements are only known when the program runs."""
