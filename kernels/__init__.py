"""Array kernels: functions on plain arrays that know nothing of dual numbers.

One folder a family (conv, pool, product, random, softmax), and in each:

- cpu.py: the functions on NumPy arrays, a few with a numba loop beside the NumPy form;
- gpu.py: their twins on CuPy arrays, the same names and the same arguments;
- __init__.py: the same names once more, picking the twin by the type of the first argument.

dispatch.py holds what the families share: that choice, the lazy compilation of numba loops, and the
one table that says from which size a loop is used. Nothing in here imports from the rest of
dualgrad, and numba and cupy are imported in here alone, when first needed.
"""
