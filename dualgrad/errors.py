"""The errors dualgrad raises: each says what happened with its values, why, and the way out."""


class DualgradError(Exception):
    """Base class of every error that dualgrad raises on purpose."""


class MissingRuleError(DualgradError, NotImplementedError, TypeError):
    """A function, or one of its arguments, has no tangent rule."""


class LevelError(DualgradError, RuntimeError):
    """A dual was used outside the transform call it belongs to."""


class ShapeError(DualgradError, ValueError):
    """Shapes or numbers of directions do not fit together."""


class StructureError(DualgradError, ValueError, TypeError):
    """Two trees that must have the same structure differ."""


class DtypeError(DualgradError, TypeError):
    """A dtype that cannot be differentiated, or that cannot hold the tangent."""


class ConversionError(DualgradError, TypeError):
    """A conversion to a plain number or array would lose the tangent."""


class WriteError(DualgradError, TypeError, ValueError):
    """An in-place write would lose a tangent or change a transform's argument."""


class NonFiniteError(DualgradError, FloatingPointError):
    """Inside debug_nans, an operation made a tangent that is NaN or infinite.

    Attributes:
        operation, filename, lineno, source: the function, and the user's line that called it.
    """

    operation: str
    filename: str
    lineno: int
    source: str


class DeviceError(DualgradError, TypeError):
    """Host and device arrays were mixed, or the device is not there."""


class MissingPackageError(DualgradError, ImportError):
    """A function needs a package that is an extra, and it is not installed."""


class OptionError(DualgradError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class DataError(DualgradError, ValueError, OSError):
    """A data set's file is missing, damaged or altered."""


class CheckpointError(DualgradError, ValueError, OSError):
    """A saved file is missing, damaged, or holds another structure than asked for."""
