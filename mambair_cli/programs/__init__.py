"""What is compiled for GPUs without importing PyTorch: the Triton programs and CUDA C++ of ``kernels``."""
