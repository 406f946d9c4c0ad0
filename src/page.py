"""The report's page: values in, HTML out. Its looks and its JavaScript are in page.html."""

import base64
import html
import json
import re

import numpy as np


def fill(template: str, **parts: str) -> str:
    """Put each part in the place of its {{name}}.

    Raises:
        KeyError: the template names a part that is not given.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def facts(record: dict[str, object]) -> str:
    """List names and values as the rows of a table."""
    return "\n".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}"
        for name, value in record.items()
    )


def confusion(counts: np.ndarray, per_class: list[dict[str, float]]) -> str:
    """Lay out int (10, 10) counts, actual by predicted, with each digit's F1, as rows.

    A cell's shade, --share, is the root of its part of the row, so that rare mistakes show.
    """
    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    lines = []
    for actual, scores in enumerate(per_class):
        lines.append(f"<tr><th scope=row>{actual}")
        for predicted, count in enumerate(counts[actual]):
            kind = "right" if predicted == actual else "wrong"
            share = shares[actual, predicted]
            lines.append(f'<td class={kind} style="--share:{share:.3f}">{count or ""}')
        lines.append(f"<td>{scores['f1']:.3f}")
    return "\n".join(lines)


def data(**arrays: np.ndarray) -> str:
    """Pack arrays for the JavaScript: JSON of base64, little-endian, in C order."""
    return json.dumps({name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()})
