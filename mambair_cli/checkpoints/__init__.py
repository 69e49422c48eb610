"""Which checkpoint file does a job: fetched, verified and loaded strictly."""
