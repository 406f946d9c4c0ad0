"""A picture of a digit, brought to the form that MNIST's images have.

MNIST's makers took black and white digits, scaled each into a box of 20x20 keeping its shape,
with grey levels from anti-aliasing, and laid its centre of mass on the centre of 28x28
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). `intoForm` in
src/report/page.html does the same in the page: change both or neither.
"""

import warnings

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from src.exact import grids

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
WORK = 320  # pixels on the longer side of the picture in which the ink is looked for
# Part of that side. What is narrower may be ink; shadows and tables are wider, or at the border.
WIDEST = 0.3
FAINTEST = 0.12  # contrast of ink with its paper, from 0 to 1
NEAR = 0.15  # part of the digit's size: a piece of ink no farther away belongs to the digit
PEN = 0.12  # part of the digit's size: the width of MNIST's lines


def read(path: str, side: int) -> tuple[np.ndarray, str | None]:
    """Read a picture, dark on light or light on dark, as an image in MNIST's form.

    A picture of side x side pixels is taken to be in that form and only turned to light on dark.

    Args:
        path: of a picture in one of FORMATS.
        side: of the model's images, in pixels.

    Returns:
        float32 (side * side,), on the grid of pixels from 0 to 1; and a doubt about it, or None.

    Raises:
        OSError: the file is missing, no picture, or shows nothing; says so without the path.
    """
    grey = read_grey(path)
    is_in_form = grey.shape == (side, side)
    contrast = np.ptp(grey) / 255 if is_in_form else find_contrast(grey)
    if np.max(contrast) < FAINTEST:
        raise OSError("shows nothing: it has about the same grey everywhere")
    if is_in_form:
        image, doubt = (255 - grey if is_light(grey) else grey) / 255, None
    else:
        ink, doubt = find_digit(contrast * 2 > contrast.max())
        image = into_form(thicken(ink), side)
    return grids.PIXELS.nearest(image).astype(np.float32).ravel(), doubt


def read_grey(path: str) -> np.ndarray:
    """Return the grey levels, uint8 (height, width); what is transparent gets a paper."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as opened,
        ):
            picture = ImageOps.exif_transpose(opened)  # before a conversion drops a TIFF's tags
            if picture.mode.startswith("I"):  # grey in 16 bits, which RGBA would cut off at 255
                picture = picture.convert("I").point(lambda level: level / 257)
            upright = picture.convert("RGBA")
    except FileNotFoundError as error:
        raise OSError("is missing") from error
    except Exception as error:  # arbitrary bytes make the decoders raise almost anything
        raise OSError(f"cannot be read as a picture: {' '.join(str(error).split())}") from error
    for paper in ("white", "black"):
        sheet = Image.new("RGBA", upright.size, paper)
        grey = np.asarray(Image.alpha_composite(sheet, upright).convert("L"))
        if np.ptp(grey) >= FAINTEST * 255:
            break
    return grey


def is_light(grey: np.ndarray) -> bool:
    """Say whether the paper is lighter than the ink: there is more paper than ink.

    The border counts for a quarter: a digit may fill the picture, and a table the border.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    middle = (int(grey.min()) + int(grey.max())) / 2
    return bool(3 * (grey > middle).mean() + (border > middle).mean() > 2)


def find_contrast(grey: np.ndarray) -> np.ndarray:
    """Compare each pixel with the paper around it, so that a shadow makes no difference.

    The paper is what a morphological closing leaves (for light ink, an opening): it takes away
    what is narrower than its window and keeps the edges of what is wider.

    Returns:
        float64, WORK on the longer side: 0 for paper, 1 for black on white or white on black.
    """
    scale = WORK / max(grey.shape)
    height, width = (max(1, round(length * scale)) for length in grey.shape)
    resized = Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)
    smooth = ndimage.gaussian_filter(np.asarray(resized).astype(np.float64), 0.7)
    cover = ndimage.grey_closing if is_light(grey) else ndimage.grey_opening
    paper = cover(smooth, round(WIDEST * WORK))
    lighter = np.maximum(paper, smooth)
    # In the darkest parts of a picture the noise is as large as the light.
    return np.abs(paper - smooth) / np.maximum(lighter, max(1, 0.4 * lighter.max()))


def find_digit(ink: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Keep the largest piece of the ink and what is near it, of bool (height, width).

    A piece that lies along the picture's border or goes from one side to another may be the edge
    of a table: it has to be four times as large as another piece to be taken for the digit.
    """
    labels, count = ndimage.label(ink, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    boxes = np.array([[(s.start, s.stop) for s in box] for box in ndimage.find_objects(labels)])
    start, stop = boxes[..., 0], boxes[..., 1]
    size = (stop - start).max(axis=1)
    sides = (start == 0).sum(axis=1) + (stop == ink.shape).sum(axis=1)
    frame = np.ones(ink.shape)
    frame[1:-1, 1:-1] = 0
    is_edge = (sides > 1) | (2 * ndimage.sum_labels(frame, labels, numbers) > size)
    main = np.argmax(np.where(is_edge, size / 4, size))
    reach = 1 + 2 * round(NEAR * size[main])
    around = ndimage.maximum_filter(labels == numbers[main], reach)
    is_near = np.isin(numbers, labels[around])
    is_large = 2 * size >= size[main]
    is_beside = (start[:, 1] >= stop[main, 1]) | (stop[:, 1] <= start[main, 1])
    kept = is_near & ~is_edge & ~(is_large & is_beside)
    kept[main] = True
    height, width = stop[main] - start[main]
    several = (is_large & ~is_edge & ~kept).any() or width > 1.4 * height
    return np.isin(labels, numbers[kept]), "more than one digit?" if several else None


def thicken(ink: np.ndarray) -> np.ndarray:
    """Thicken lines that are thinner than PEN times the digit's size to that width."""
    rows, columns = np.nonzero(ink)
    size = 1 + max(np.ptp(rows), np.ptp(columns))
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    ink = np.pad(ink, 1 + round(PEN * size))
    # Across a line of width w the distance to its edge is w / 4 on average.
    width = 4 * (ndimage.distance_transform_edt(ink)[ink].mean() - 0.5)
    grown = (PEN * size - width) / 2 / (1 - PEN)  # the digit grows with its lines
    return ndimage.distance_transform_edt(~ink) <= max(0, grown)


def into_form(ink: np.ndarray, side: int = 28) -> np.ndarray:
    """Scale and centre the ink; each pixel is the part of its area that ink covers.

    Args:
        ink: bool (height, width), some of it true.
        side: of the result. The longer side of the ink is 20/28 of it; the centre of mass lies at
            14.5 of 28, as MNIST's own images have theirs between 14 and 15.

    Returns:
        float64 (side, side) in [0, 1].
    """
    scale = side * 5 / 7 / max(np.ptp(along) + 1 for along in np.nonzero(ink))
    down = overlaps(ink.sum(axis=1), scale, side)
    across = overlaps(ink.sum(axis=0), scale, side)
    return np.minimum(down @ ink @ across.T, 1)


def overlaps(ink: np.ndarray, scale: float, side: int) -> np.ndarray:
    """Say how much of each pixel of the form each pixel of the picture covers, along one axis.

    Args:
        ink: (length,), the ink along that axis, whose centre of mass comes to lie in the middle.
        scale: the new size of a pixel.
        side: pixels of the form.

    Returns:
        float64 (side, length).
    """
    edges = np.arange(len(ink) + 1)
    centre = ink @ (edges[:-1] + 0.5) / ink.sum()
    placed = (edges - centre) * scale + side * 14.5 / 28
    pixels = np.arange(side)[:, None]
    return np.maximum(np.minimum(placed[1:], pixels + 1) - np.maximum(placed[:-1], pixels), 0)
