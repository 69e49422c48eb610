"""Pictures read and written some rows at a time."""

import io
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata import exif_block
from pictures import encode, make_picture, noise

from mambair_cli.images import Writer, encode_picture, fit_header, open_picture, read_picture
from mambair_cli.images.picture import Metadata


@given(st.data())
@settings(max_examples=60)
def test_rows_are_those_of_the_whole(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["png", "tiff", "jpeg", "webp", "gif", "bmp", "avif"]))
    options: dict[str, Any] = {"exif": exif_block(data.draw(st.sampled_from([1, 2, 3, 6])))}
    file = encode(noise(40, 30, 3), format, **({} if format in ("gif", "bmp") else options))
    whole = read_picture(file).samples
    with open_picture(file) as reader:
        for _ in range(data.draw(st.integers(1, 3))):  # begins anew at the top
            top = 0
            while top < len(whole):
                bottom = min(len(whole), top + data.draw(st.integers(1, 30)))
                np.testing.assert_array_equal(reader.read(top, bottom), whole[top:bottom])
                top = bottom


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp", "avif", "gif"])
def test_a_writer_that_begins_anew_writes_what_it_would_have(format: str) -> None:
    whole = replace(make_picture(60, 40), metadata=Metadata(exif=exif_block()))
    file = io.BytesIO()
    with Writer(file, fit_header(whole.header, format, "it"), format, None, "it") as writer:
        writer.write(0, noise(50, 40, 3, seed=9))
        writer.write(0, whole.pixels[:25])
        writer.write(25, whole.pixels[25:])
        writer.finish()
    assert file.getvalue() == encode_picture(whole, format)


def test_a_writer_wants_rows_in_order() -> None:
    header, threads = fit_header(make_picture().header, "png", "it"), set(threading.enumerate())
    with Writer(io.BytesIO(), header, "png", None, "it") as writer:
        with pytest.raises(ValueError, match="no row came"):
            writer.finish()
        writer.write(0, make_picture().pixels[:3])
        with pytest.raises(ValueError, match="row 4 came where row 3 is the next one"):
            writer.write(4, make_picture().pixels[4:])
    assert set(threading.enumerate()) <= threads
