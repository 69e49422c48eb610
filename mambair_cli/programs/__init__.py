"""The Triton programs of ``kernels``, which can be compiled where PyTorch is not imported."""
