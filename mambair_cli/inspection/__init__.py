"""What a picture needs: how noisy, compressed and detailed it is, and the kind of model that suits it."""
