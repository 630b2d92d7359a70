"""What NumPy has and CuPy 14 lacks: tests/test_standin.py compares with the real one."""

# Functions and ufuncs of numpy, numpy.linalg and numpy.fft for which cupy has none.
LACKING = {
    "": """asmatrix block bmat busday_count busday_offset datetime_as_string datetime_data
        einsum_path frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall
        histogram_bin_edges info insert is_busday isnat matvec nanpercentile nanquantile
        nested_iters polyder polydiv polyint setbufsize seterr seterrcall show_runtime spacing test
        unstack vecdot vecmat""".split(),
    "linalg": """diagonal matrix_norm multi_dot outer svdvals tensordot test trace vecdot
        vector_norm""".split(),
    "fft": ["test"],
}

# Functions that cupy takes from numpy as they are: they serve no device arrays.
SHARED = """broadcast_shapes get_printoptions isdtype issubdtype iterable mintypecode printoptions
    promote_types set_printoptions typename""".split()

# Parameters that NumPy's function has and CuPy's has not, or calls otherwise.
PARAMETERS = {
    "": {
        "all any": "where",
        "amax amin max min nanmax nanmin nanprod nansum prod sum": "initial where",
        "array": "object ndmax",
        "array_str": "a",
        "arange": "start_or_stop",
        "arange asanyarray asarray astype empty empty_like eye full full_like linspace ones "
        "ones_like zeros zeros_like": "device",
        "argpartition partition": "kind order",
        "argsort sort": "order stable",
        "clip": "min max kwargs",
        "concat concatenate stack": "arrays",
        "corrcoef": "x",
        "count_nonzero": "keepdims",
        "cov flip fliplr flipud rot90": "m",
        "delete": "obj",
        "ediff1d": "ary",
        "extract take_along_axis": "arr",
        "histogram": "a",
        "indices": "sparse",
        "intersect1d union1d": "ar1 ar2",
        "isin": "kind",
        "lexsort": "axis",
        "mean nanmean": "where",
        "nanstd nanvar std var": "where mean correction",
        "percentile quantile": "weights",
        "piecewise": "args kw",
        "reshape unravel_index": "shape",
        "take": "mode",
        "load": "fix_imports encoding max_header_size",
        "savez savez_compressed": "allow_pickle",
        "show_config": "mode",
        "unpackbits": "count",
        "trim_zeros": "axis",
        "unique": "sorted",
    },
    "linalg": {
        "cholesky": "upper",
        "matmul": "x1 x2",
        "matrix_power": "a",
        "matrix_rank": "A hermitian rtol",
        "matrix_transpose": "x",
        "pinv": "hermitian rtol",
        "svd": "hermitian",
    },
    "fft": {
        "fft fft2 fftn hfft ifft ifft2 ifftn ihfft irfft irfft2 irfftn rfft rfft2 rfftn": "out",
        "fftfreq rfftfreq": "device",
    },
}

# Methods and attributes of numpy.ndarray that cupy.ndarray has not.
METHODS_LACKING = "ctypes getfield resize setfield setflags to_device".split()

# The methods of ufuncs that CuPy has, and of which ufuncs; "outer" is there for all.
UFUNC_METHODS = {
    "reduce": ["add", "multiply"],
    "accumulate": ["add", "multiply"],
    "reduceat": ["add"],
    "at": "add subtract maximum minimum bitwise_and bitwise_or bitwise_xor".split(),
}

# Functions whose result's shape depends on values: CuPy waits for the device.
SYNCHRONISING = """argwhere bincount compress extract flatnonzero histogram in1d intersect1d
    isin nonzero setdiff1d setxor1d trim_zeros union1d unique unique_all unique_counts
    unique_inverse unique_values""".split()


def lacking_parameters(module: str, name: str) -> frozenset[str]:
    """Return the parameters of numpy's function that cupy's refuses."""
    rows = PARAMETERS[module].items()
    return frozenset(
        word for names, found in rows if name in names.split() for word in found.split()
    )


def refuse(name: str, lacking: frozenset[str], kwargs: dict) -> None:
    """Raise the TypeError of a function that does not know a parameter."""
    for word in lacking.intersection(kwargs):
        raise TypeError(f"{name}() got an unexpected keyword argument {word!r}")
