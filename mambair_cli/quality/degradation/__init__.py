"""Degrade pictures as real ones are: blurred, resized, noisy, sharpened and compressed, in varying order.

``recipe`` says what may happen and draws what does happen to each picture, with numbers from a seed alone;
``apply`` does it to a batch of them at once, on a GPU where there is one. The parts: ``filters`` (blur and
sharpening), ``resample``, ``noise``, ``codecs`` (JPEG and WebP).
"""
