"""What is known of public data sets, and no source says."""

from typing import NamedTuple


class Known(NamedTuple):
    """What the classes are, and their names where the source has numbers."""

    kind: str
    names: tuple[str, ...] = ()


FASHION = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# By their names on OpenML.
KNOWN = {
    "mnist_784": Known("digit"),
    "optdigits": Known("digit"),
    "Fashion-MNIST": Known("garment", FASHION),
    "Kuzushiji-MNIST": Known("character", tuple("おきすつなはまやれを")),
}
UNKNOWN = Known("class")
