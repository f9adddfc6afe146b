"""The Triton kernels, one module per op. They are imported only where Triton is wanted."""
