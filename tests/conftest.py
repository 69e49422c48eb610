"""Settings for every test."""

import os

from hypothesis import settings

# Small tensors gain nothing from threads; threads that wait for each other on a busy machine take seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of torch, which reads it then

settings.register_profile("mambair", deadline=None)  # a first call imports, compiles or allocates
settings.load_profile("mambair")
