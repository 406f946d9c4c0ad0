"""A picture of a digit, brought to the form that MNIST's images have.

MNIST's makers took black and white digits, scaled each into a box of 20x20 keeping its shape,
with grey levels from anti-aliasing, and laid its centre of mass on the centre of 28x28
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). `intoForm` in
src/page.html does the same in the page: change both or neither.
"""

import warnings

import numpy as np
from PIL import Image, ImageOps

SIZE, BOX = 28, 20
# MNIST's own images have their centre of mass between 14 and 15, counted from the edge.
CENTRE = 14.5
# Less than this from the background, of 255 levels, is no ink.
FAINTEST = 32


def read(path: str) -> np.ndarray:
    """Read a PNG or JPEG, dark on light or light on dark, as an image in MNIST's form.

    The background is the middle grey level of the picture's border; ink is what differs from
    it by more than half of the largest difference. A picture of 28x28 pixels is taken to be in
    MNIST's form and only turned to light on dark.

    Returns:
        float32 (784,) in [0, 1].

    Raises:
        OSError: the file is missing, no picture, or shows nothing; names the path.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=("PNG", "JPEG")) as picture,
        ):
            if picture.mode.startswith("I"):  # grey in 16 bits, which RGBA would cut off at 255
                picture = picture.convert("I").point(lambda level: level / 257)
            upright = ImageOps.exif_transpose(picture.convert("RGBA"))
    except FileNotFoundError as error:
        raise OSError(f"{path} is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path} cannot be read as a PNG or JPEG picture: {error}") from error
    for paper in ("white", "black"):  # under what is transparent, if anything is
        sheet = Image.new("RGBA", upright.size, paper)
        grey = np.asarray(Image.alpha_composite(sheet, upright).convert("L")).astype(np.int16)
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        background = int(np.median(border))
        contrast = np.abs(grey - background)
        if contrast.max() >= FAINTEST:
            break
    else:
        raise OSError(f"{path} shows nothing: all of it is about as dark as its border")
    if grey.shape == (SIZE, SIZE):
        levels = 255 - grey if background > 127 else grey
        return levels.astype(np.float32).ravel() / np.float32(255)
    return into_form(contrast * 2 > contrast.max()).astype(np.float32).ravel()


def into_form(ink: np.ndarray) -> np.ndarray:
    """Scale and centre the ink; each pixel is the part of its area that ink covers.

    Args:
        ink: bool (height, width), some of it true.

    Returns:
        float64 (28, 28) in [0, 1].
    """
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    scale = BOX / (1 + max(np.ptp(rows), np.ptp(columns)))
    down = overlaps(ink.sum(axis=1), scale)
    across = overlaps(ink.sum(axis=0), scale)
    return np.minimum(down @ ink @ across.T, 1)


def overlaps(ink: np.ndarray, scale: float) -> np.ndarray:
    """Say how much of each of 28 pixels each pixel of the picture covers, along one axis.

    Args:
        ink: (length,), the ink along that axis, whose centre of mass comes to lie on CENTRE.
        scale: the new size of a pixel.

    Returns:
        float64 (28, length).
    """
    edges = np.arange(len(ink) + 1)
    centre = ink @ (edges[:-1] + 0.5) / ink.sum()
    placed = (edges - centre) * scale + CENTRE
    pixels = np.arange(SIZE)[:, None]
    return np.maximum(np.minimum(placed[1:], pixels + 1) - np.maximum(placed[:-1], pixels), 0)
