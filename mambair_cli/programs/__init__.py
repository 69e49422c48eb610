"""What is compiled for GPUs, where PyTorch is not imported: the Triton programs and CUDA C++ of ``kernels``."""
