"""What pages for the browser hold, read back."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def read_data(page: Path) -> dict[str, Any]:
    """Return the data that a page's scripts read."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1])


def pixels_of(picture: dict[str, Any]) -> np.ndarray:
    """Return the pixels of a picture in that data."""
    head, data = picture["source"].split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
