"""The report's page: values in, HTML out. Its looks and its JavaScript are in page.html."""

import base64
import html
import json
import re
from typing import Any

import numpy as np


def render(template: str, **given: Any) -> str:
    """Fill the template; interim, until the page can show every model."""
    weight, bias = given["tensors"].get("0.weight"), given["tensors"].get("0.bias")
    metrics = given["metrics"]
    log_probabilities, labels = given["log_probabilities"], given["labels"]
    wrong = np.flatnonzero(log_probabilities.argmax(axis=1) != labels)
    worst = wrong[np.argsort(-log_probabilities[wrong].max(axis=1), kind="stable")[:24]]
    rows = np.concatenate([np.arange(min(100, len(labels))), worst])
    arrays = {
        "weight": weight,
        "bias": bias,
        "images": np.rint(given["images"][rows] * 255).astype(np.uint8),
        "labels": labels[rows].astype(np.uint8),
        "rows": rows.astype("<u4"),
    }
    parts = {
        "accuracy": f"{metrics['accuracy']:.2%}",
        "correct": f"{metrics['correct']:,}",
        "total": f"{metrics['total']:,}",
        "loss": f"{metrics['loss']:.4f}",
        "macro_f1": f"{metrics['macro_f1']:.4f}",
        "train_rows": f"{len(given['train_labels']):,}",
        "recipe": facts(given["recipe"]),
        "hashes": facts(given["hashes"]),
        "mistakes_from": str(len(rows) - len(worst)),
        "data": json.dumps(
            {name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()}
        ),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts.get(place[1], ""), template)


def facts(record: dict[str, object]) -> str:
    """List names and values as the rows of a table."""
    return "\n".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}"
        for name, value in record.items()
    )
