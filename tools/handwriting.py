"""A picture of a digit, brought to the form that MNIST's images have.

MNIST's makers took black and white digits, scaled each into a box of 20x20 keeping its shape,
with grey levels from anti-aliasing, and laid its centre of mass on the centre of 28x28
(LeCun, Cortes and Burges, "The MNIST database of handwritten digits"). `intoForm` in
src/report/page.html does the same in the page: change both or neither.
"""

import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from src.common import dataset
from src.sources.folder import UPRIGHT, orientation

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
A_FRAME = "a frame?"
NOTHING = "shows nothing: it has about the same grey everywhere"
WORK = 320  # pixels on the longer side of the picture in which the ink is looked for
# Part of that side. What is narrower may be ink; shadows and tables are wider, or at the border.
WIDEST = 0.3
FAINTEST = 0.12  # contrast of ink with its paper, from 0 to 1
NEAR = 0.15  # part of the digit's size: a piece of ink no farther away belongs to the digit
SLANT = 0.1  # part of the size of a frame by which its sides may slant
DEEPEST = 4  # frames in one another that are looked into
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
    picture, first = read_upright(path)
    grey = to_grey(picture)
    if grey.shape == (side, side):
        if np.ptp(grey) < FAINTEST * 255:
            raise OSError(NOTHING)
        image, doubt = (255 - grey if is_light(grey) else grey) / 255, None
    else:
        ink, doubt = find_digit(grey)
        image = into_form(thicken(ink), side)
    doubts = "; ".join(filter(None, (first, doubt)))
    return to_grid(image).ravel(), doubts or None


def read_resized(path: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, str | None]:
    """Read a picture as it is: the middle of it that has the model's shape, scaled to its size.

    Args:
        path: of a picture in one of FORMATS; what is transparent becomes white.
        shape: of the model's images: 1 or 3 channels (grey or RGB), height, width.

    Returns:
        float32 (channels, height, width), on the grid of pixels from 0 to 1; and a doubt or None.

    Raises:
        OSError: the file is missing or no picture; says so without the path.
    """
    channels, height, width = shape
    picture, doubt = read_upright(path)
    sheet = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    plain = sheet.convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    levels = np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)
    return to_grid(levels / 255), doubt


def read_upright(path: str) -> tuple[Image.Image, str | None]:
    """Read the first picture of a file, turned upright, in mode RGBA; and a doubt if it has more.

    Raises:
        OSError: the file is missing or no picture; says so without the path.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=FORMATS) as opened,
        ):
            opened.load()
            # What follows the first picture of a camera's JPEG is its preview.
            count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            picture: Image.Image = opened
            if (turn := orientation(opened)) in UPRIGHT:
                picture = opened.transpose(UPRIGHT[turn])
            if picture.mode[0] in "IF":  # more than 8 bits, which RGBA would cut off at 255
                picture = to_bytes(np.asarray(picture))
            return picture.convert("RGBA"), f"the first of {count} pictures" if count > 1 else None
    except FileNotFoundError as error:
        raise OSError("is missing") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise OSError(f"is too large: at most {most:,} pixels are read; scale it down") from error
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
        raise OSError(f"cannot be read as a picture: only {known} can") from error
    except Exception as error:  # arbitrary bytes make the decoders raise almost anything
        raise OSError(f"cannot be read as a picture: {' '.join(str(error).split())}") from error


def to_bytes(levels: np.ndarray) -> Image.Image:
    """Scale grey levels of more than 8 bits; what ends at 255 has 8 bits, whatever holds it."""
    is_part = levels.dtype.kind == "f" and levels.max() <= 1
    levels = np.nan_to_num(levels.astype(np.float64), posinf=0, neginf=0).clip(0)
    largest = levels.max()
    most = 1.0 if is_part else max(255.0, 2.0 ** np.ceil(np.log2(largest + 1)) - 1)
    return Image.fromarray(np.uint8(np.minimum(levels / most, 1) * 255))


def to_grey(picture: Image.Image) -> np.ndarray:
    """Return the grey levels of a picture in mode RGBA, uint8 (height, width).

    What is transparent gets the paper, white or else black, on which something shows.
    """
    for paper in ("white", "black"):
        sheet = Image.new("RGBA", picture.size, paper)
        grey = np.asarray(Image.alpha_composite(sheet, picture).convert("L"))
        if np.ptp(grey) >= FAINTEST * 255:
            break
    return grey


def to_grid(pixels: np.ndarray) -> np.ndarray:
    """Return pixels from 0 to 1 as float32, on the grid of the prepared images."""
    steps = np.rint(pixels / dataset.PIXEL_STEP)
    return (steps * dataset.PIXEL_STEP).astype(np.float32)


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


def find_digit(grey: np.ndarray, depth: int = 0) -> tuple[np.ndarray, str | None]:
    """Find the digit, also in a frame, a box of a form or the panel of a plot.

    What encloses is not the digit if it holds something of a third of its size or more: that is
    looked at again, with its own paper and ink.

    Args:
        grey: uint8 (height, width).
        depth: how many enclosures it was taken out of.

    Returns:
        the digit's ink, bool (h, w), with WORK pixels on the longer side of what was looked at;
        and a doubt, or None.

    Raises:
        OSError: it shows nothing.
    """
    contrast = find_contrast(grey)
    if contrast.max() < FAINTEST:
        raise OSError(NOTHING)
    panel = find_panel(grey)
    found = look_into(grey, panel, depth) if panel else None
    if found and 3 * max(np.ptp(along) + 1 for along in np.nonzero(found[0])) >= WORK:
        return found
    strong, weak = (contrast * part > contrast.max() for part in (2, 3))
    ink, several = Pieces(strong).largest()
    # A printed frame may be darker than the digit in it, or fainter.
    marks = weak if several == A_FRAME else strong
    room, doubt = Pieces(strong).find_room(marks)
    if room is None:
        room, doubt = Pieces(weak).find_room(marks)
    if room:
        scale = max(grey.shape) / WORK
        down, across = (slice(round(s.start * scale), round(s.stop * scale)) for s in room)
        if found := look_into(grey, (down, across), depth):
            return found[0], found[1] or doubt
    return ink, several or doubt


def look_into(
    grey: np.ndarray, place: tuple[slice, slice], depth: int
) -> tuple[np.ndarray, str | None] | None:
    """Find the digit in a part of the picture, or None if that shows nothing."""
    try:
        return find_digit(grey[place], depth + 1) if depth < DEEPEST else None
    except OSError:
        return None


def find_panel(grey: np.ndarray) -> tuple[slice, slice] | None:
    """Find a rectangle of another grey than what surrounds it, as a plot draws an image.

    It is at least two thirds solid, which no digit's ring is, and of a third of the picture's size.
    """
    scale = min(1, WORK / max(grey.shape))
    height, width = (max(1, round(length * scale)) for length in grey.shape)
    small = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX))
    is_high = small > (int(small.min()) + int(small.max())) / 2
    for mask in (is_high, ~is_high):
        labels, count = ndimage.label(mask)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        piece = labels == 1 + sizes.argmax()
        place = []
        for axis in (1, 0):  # the ticks of an axis stick out of the rectangle
            counts = piece.sum(axis=axis)
            along = np.flatnonzero(counts * 2 > counts.max())
            place.append(slice(int(along[0]), int(along[-1]) + 1))
        outside = np.delete(sizes, np.unique(labels[tuple(place)][mask[tuple(place)]]) - 1)
        if (2 * outside > sizes.max()).any():  # the boxes of a form, and more than one digit?
            continue
        box = piece[tuple(place)]
        touched = sum(
            (s.start == 0) + (s.stop == n) for s, n in zip(place, small.shape, strict=True)
        )
        longer, shorter = max(box.shape), min(box.shape)
        # What touches more sides may be a shadow.
        if touched > 1 or 3 * longer < max(small.shape) or 2 * shorter < longer:
            continue
        if ndimage.binary_fill_holes(box).mean() > 0.98 and mask[tuple(place)].mean() > 2 / 3:
            inset = 1 + round(0.01 * max(box.shape))
            down, across = (
                slice(round((s.start + inset) / scale), round((s.stop - inset) / scale))
                for s in place
            )
            return down, across
    return None


class Pieces:
    """The connected pieces of the ink, bool (height, width), some of it true.

    Attributes:
        labels: int (height, width), the number of a piece, or 0.
        numbers: (N,), of the pieces, from 1.
        start, stop: int (N, 2), of each piece's box: row and column.
        size: (N,), the longer side of the box.
        is_edge: bool (N,). What lies along the picture's border or goes from one side to another
            may be the edge of a table: it has to be four times as large as another piece to be
            taken for the digit.
    """

    def __init__(self, ink: np.ndarray) -> None:
        self.labels, count = ndimage.label(ink, np.ones((3, 3)))
        self.numbers = np.arange(1, count + 1)
        found = ndimage.find_objects(self.labels)
        boxes = np.array([[(s.start, s.stop) for s in box] for box in found])
        self.start, self.stop = boxes[..., 0], boxes[..., 1]
        self.size = (self.stop - self.start).max(axis=1)
        sides = (self.start == 0).sum(axis=1) + (self.stop == ink.shape).sum(axis=1)
        border = np.ones(ink.shape)
        border[1:-1, 1:-1] = 0
        along = ndimage.sum_labels(border, self.labels, self.numbers)
        self.is_edge = (sides > 1) | (2 * along > self.size)

    def largest(self) -> tuple[np.ndarray, str | None]:
        """Return the ink of the largest piece and of what is near it; and a doubt, or None."""
        start, stop, size = self.start, self.stop, self.size
        main = np.argmax(np.where(self.is_edge, size / 4, size))
        reach = 1 + 2 * round(NEAR * size[main])
        around = ndimage.maximum_filter(self.labels == self.numbers[main], reach)
        is_near = np.isin(self.numbers, self.labels[around])
        is_large = 2 * size >= size[main]
        is_beside = (start[:, 1] >= stop[main, 1]) | (stop[:, 1] <= start[main, 1])
        kept = is_near & ~self.is_edge & ~(is_large & is_beside)
        kept[main] = True
        height, width = stop[main] - start[main]
        several = (is_large & ~self.is_edge & ~kept).any() or width > 1.4 * height
        ink = np.isin(self.labels, self.numbers[kept])
        if several:
            return ink, "more than one digit?"
        box = self.labels[start[main, 0] : stop[main, 0], start[main, 1] : stop[main, 1]]
        solid = box == self.numbers[main]
        straight = 0
        for walls in (solid, solid[::-1], solid.T, solid.T[::-1]):
            straight += bool(walls[: 1 + len(walls) // 10].mean(axis=1).max() > 0.85)
        is_frame = straight > 2 and min(height, width) > 0.2 * max(ink.shape)
        return ink, A_FRAME if is_frame else None

    def find_room(self, marks: np.ndarray) -> tuple[tuple[slice, slice] | None, str | None]:
        """Find the room of the largest piece that others enclose: a frame, or the axes of a plot.

        Args:
            marks: bool (height, width): the piece has some of these.

        Returns:
            the room, without what encloses it, or None; and a doubt, if another piece of that kind
            is elsewhere.
        """
        found: tuple[slice, slice] | None = None
        for at in np.argsort(-self.size, kind="stable")[1:13]:
            is_marked = (marks & (self.labels == self.numbers[at])).any()
            if not is_marked or (room := self.enclosed(at)) is None:
                continue
            if found is None:
                found = room
            elif any(
                s.start >= f.stop or s.stop <= f.start for s, f in zip(room, found, strict=True)
            ):
                return found, "more than one digit?"
        return found, None

    def enclosed(self, at: int) -> tuple[slice, slice] | None:
        """Grow a piece's box up to pieces as large as itself, and say whether these enclose it.

        They do if it lies in their box and has a third of its size, and if they take a third of
        two sides of its room: of three, if they are several, as two digits may stand beside it.
        A piece of half the size of another, as the letters on a button, is not looked for.

        Returns:
            the room, a little smaller for the blur of its walls, or None.
        """
        others = (self.size >= self.size[at]) & (self.numbers != self.numbers[at])
        wall = np.isin(self.labels, self.numbers[others])
        (top, left), (bottom, right) = self.start[at].tolist(), self.stop[at].tolist()
        if wall[top:bottom, left:right].any() or not others.any():
            return None
        height, width = wall.shape
        before = None
        while before != (before := (top, bottom, left, right)):
            top -= top > 0 and not wall[top - 1, left:right].any()
            bottom += bottom < height and not wall[bottom, left:right].any()
            left -= left > 0 and not wall[top:bottom, left - 1].any()
            right += right < width and not wall[top:bottom, right].any()
        reach = 2 + round(SLANT * max(bottom - top, right - left))
        sides = (
            self.labels[max(0, top - reach) : top, left:right],
            self.labels[bottom : bottom + reach, left:right],
            self.labels[top:bottom, max(0, left - reach) : left].T,
            self.labels[top:bottom, right : right + reach].T,
        )
        numbers = self.numbers[others]
        taken = [side for side in sides if 3 * np.isin(side, numbers).any(axis=0).mean() >= 1]
        walls = np.isin(self.numbers, [number for side in taken for number in np.unique(side)])
        walls &= others
        if len(taken) <= min(2, walls.sum()):
            return None
        start, stop = self.start[walls].min(axis=0), self.stop[walls].max(axis=0)
        if (self.start[at] < start).any() or (self.stop[at] > stop).any():
            return None
        largest = self.size[~walls & ~self.is_edge].max(initial=0)
        if 3 * self.size[at] < (stop - start).min() or 2 * self.size[at] < largest:
            return None
        return (
            slice(int(max(top, start[0])) + 2, int(min(bottom, stop[0])) - 2),
            slice(int(max(left, start[1])) + 2, int(min(right, stop[1])) - 2),
        )


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
