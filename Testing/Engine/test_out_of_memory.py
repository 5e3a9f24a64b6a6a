"""Running out of memory is recognised in all its forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from progidiff.errors import DeviceError, ModelError
from progidiff.out_of_memory import is_out_of_memory


def test_real_allocation_failures_are_recognised() -> None:
    with pytest.raises(RuntimeError) as torch_failure:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpy_failure:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(torch_failure.value)
    assert is_out_of_memory(numpy_failure.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (DeviceError("The graphics card ran out of memory."), True),
        (DeviceError("There is no device cuda:7."), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (ModelError("The model is missing."), False),
    ],
)
def test_only_memory_counts(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
