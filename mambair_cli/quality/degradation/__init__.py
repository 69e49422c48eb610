"""Degrade pictures like real ones: blur, resizing, noise, sharpening and compression, in varying order.

``recipe`` holds the probabilities and draws the steps for each picture from a seed; ``apply`` does them to a
batch at once, on a GPU if there is one. Steps: ``filters`` (blur and sharpening), ``resample``, ``noise``,
``codecs`` (JPEG and WebP); ``quiet`` (parts without noise) and ``tone`` (toned gray photographs).
"""
