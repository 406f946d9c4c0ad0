// From strokes to the model's picture. Strokes are lists of [x, y], from 0 to 1 over the board. Nothing here knows the
// page, so it also runs in Node, where HEIGHT and WIDTH are the picture's.

const clamp = (value, most) => Math.max(0, Math.min(most, value));
const PEN = 0.12;               // of the drawing's size, pen included
const LEAST = 0.1;              // of the board: what is smaller is a dot, and stays small
const FINE = 8;                 // rows of the ink's mask in a row of the picture
const box = () => Math.min(HEIGHT, WIDTH) * 20 / 28;  // the side of a drawing in the picture, as in MNIST's

function frame(strokes) {
  const points = strokes.flat(), along = (axis) => points.map((point) => point[axis]);
  const [left, top, right, bottom] = [Math.min(...along(0)), Math.min(...along(1)), Math.max(...along(0)), Math.max(...along(1))];
  const size = Math.max(LEAST, Math.max(right - left, bottom - top) / (1 - PEN));
  return { left, top, right, bottom, size, pen: PEN * size };
}

const lengthOf = (stroke) => stroke.reduce((sum, [x, y], i) => i ? sum + Math.hypot(x - stroke[i - 1][0], y - stroke[i - 1][1]) : 0, 0);

function gap(stroke, others) {
  const far = others.flatMap((other) => dense(other));
  return Math.min(...dense(stroke).map(([x, y]) => far.reduce((least, [u, v]) => Math.min(least, Math.hypot(x - u, y - v)), 9)));
}

function dense(stroke) {  // points at most 0.02 apart, however fast the pen was
  return stroke.flatMap(([x, y], i) => {
    const [u, v] = stroke[Math.max(0, i - 1)], parts = Math.max(1, Math.ceil(Math.hypot(x - u, y - v) / 0.02));
    return Array.from({ length: parts }, (_, part) => [x + (u - x) * part / parts, y + (v - y) * part / parts]);
  });
}

// Leave out what is short and apart from the rest: the trace of a palm, a slip of the pen.
function withoutSpecks(strokes) {
  const total = strokes.reduce((sum, stroke) => sum + lengthOf(stroke), 0);
  const kept = strokes.filter((stroke) => lengthOf(stroke) >= 0.18 * total);
  if (!kept.length) return strokes;
  const { size } = frame(kept);
  return strokes.filter((stroke) => kept.includes(stroke) || gap(stroke, kept) < 0.12 * size);
}

// Draw the strokes as a mask, FINE times as fine as the picture.
function maskOf(strokes) {
  const { left, top, right, bottom, size, pen } = frame(strokes), scale = box() * FINE / size, radius = pen * scale / 2;
  const width = Math.round((right - left + pen) * scale), height = Math.round((bottom - top + pen) * scale);
  const ink = new Uint8Array(width * height);
  const place = ([x, y]) => [(x - left) * scale + radius - 0.5, (y - top) * scale + radius - 0.5];
  const fill = ([x0, y0], [x1, y1]) => {
    const dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy || 1;
    const lastY = clamp(Math.floor(Math.max(y0, y1) + radius), height - 1), lastX = clamp(Math.floor(Math.max(x0, x1) + radius), width - 1);
    for (let y = clamp(Math.ceil(Math.min(y0, y1) - radius), height - 1); y <= lastY; y++) {
      for (let x = clamp(Math.ceil(Math.min(x0, x1) - radius), width - 1); x <= lastX; x++) {
        const along = clamp(((x - x0) * dx + (y - y0) * dy) / square, 1);
        const h = x - x0 - along * dx, v = y - y0 - along * dy;
        if (h * h + v * v <= radius * radius) ink[y * width + x] = 1;
      }
    }
  };
  for (const stroke of strokes) stroke.forEach((point, i) => fill(place(stroke[Math.max(0, i - 1)]), place(point)));
  return { ink, width, height };
}

// Bring a mask of ink to MNIST's form, as `into_form` in tools/handwriting.py does: scaled so that
// `size` of its pixels become the box's side, its centre of mass at 14.5 of 28; a pixel is the part that ink covers.
function intoForm({ ink, width, height }, size) {
  let mass = 0, sumX = 0, sumY = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (ink[i]) { mass += 1; sumX += x + 0.5; sumY += y + 0.5; }
    }
  }
  const form = new Float64Array(HEIGHT * WIDTH), scale = box() / size;
  const edges = (count, middle, centre, most) => Float64Array.from({ length: count + 1 }, (_, at) => clamp((at - middle) * scale + centre, most));
  const across = edges(width, sumX / mass, WIDTH * 14.5 / 28, WIDTH), down = edges(height, sumY / mass, HEIGHT * 14.5 / 28, HEIGHT);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!ink[i]) continue;
      for (let row = Math.floor(down[y]); row < down[y + 1]; row++) {
        const high = Math.min(down[y + 1], row + 1) - Math.max(down[y], row);
        for (let column = Math.floor(across[x]); column < across[x + 1]; column++) {
          form[row * WIDTH + column] += high * (Math.min(across[x + 1], column + 1) - Math.max(across[x], column));
        }
      }
    }
  }
  return form.map((value) => Math.min(value, 1));
}

const formOf = (strokes) => intoForm(maskOf(strokes), box() * FINE).map((value) => snap(value, 2 ** -16));
