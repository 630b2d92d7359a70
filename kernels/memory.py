"""The allocator's habits with large temporary arrays."""

import functools

import numpy as np

MAPPED = 1 << 17  # bytes from which glibc maps a block anew, by default


@functools.cache
def keep() -> None:
    """Let the allocator keep memory that large temporary arrays leave, as it does in long programs.

    glibc gives blocks of more than some size back to the system when they are freed, and then their
    pages are faulted in anew by every operation: two thirds of the time at 100,000 entries. The
    size follows the largest block freed so far, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD); so one
    such block, never touched, is enough. Other allocators do not mind.
    """
    np.empty((32 << 20) - (64 << 10), np.uint8)
