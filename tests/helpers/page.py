"""The committed page and its data, for the tests of the page."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

COMMITTED = Path(__file__).parents[2] / "results" / "try.html"


def data_of(page: str) -> dict[str, Any]:
    """The data that the page's scripts compute with."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def prototypes_of(data: dict[str, Any]) -> np.ndarray:
    """The page's prototypes as `reader.prototypes` gives them."""
    packed = np.frombuffer(base64.b64decode(data["prototypes"]), np.uint8)
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1, 196)


def greys(images: np.ndarray) -> np.ndarray:
    """Intensities as the page shows them: grey values from 0 to 255."""
    return np.floor(np.asarray(images, np.float64) * 255 + 0.5).astype(np.uint8)
