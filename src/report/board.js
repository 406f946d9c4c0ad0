// The board: from strokes to the model's picture, its answer and why.

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("content").textContent);
const [CHANNELS, HEIGHT, WIDTH] = page.shape, PIXELS = HEIGHT * WIDTH, CLASSES = page.classes.length;
const LINEAR = Boolean(page.linear) && CHANNELS === 1, WEIGHT = `${page.linear}.weight`, BIAS = `${page.linear}.bias`;
const MANY = page.confusion === null;  // so many classes that each cannot have its picture

const recorded = unpackAll(page.tensors);
const pictures = unpackPictures(page.images, page.levels, page.pictures.length, CHANNELS * PIXELS);
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Why the page does not compute the model, or null: it does. Then only recorded answers are shown.
let off = page.off, model = null, tensors = recorded;
try {
  if (!off) model = build(page.graph, recorded, page.shape);
} catch (error) {
  off = `The page cannot compute this model: ${error.message}.`;
}
const recordedModel = model;
const logitsOf = (image) => compute(model, image);

function turnOff(reason) {
  off = reason;
  endDemo();
  showOff();
  showFirst();
}

function showOff() {  // say why there is no board, if there is none
  const sentence = off ?? (CHANNELS === 1 ? "" : "This model reads pictures in colour, and the board gives grey ink alone: it is off. Press a picture to have it read.");
  const { classList } = document.documentElement;
  classList.toggle("off", Boolean(off));
  classList.toggle("undrawable", Boolean(sentence));
  classList.toggle("crowd", MANY);
  classList.toggle("colour", CHANNELS === 3);
  $("off").hidden = !sentence;
  write("off", off ? `The board is off. ${off} The pictures below have the answers that were recorded.` : sentence);
  if (sentence) { $("board").removeAttribute("tabindex"); $("board").setAttribute("role", "img"); $("board").setAttribute("aria-label", "The picture"); }
}

// Compute the test pictures that the page carries, and compare with what the pipeline recorded: a few
// at once, the others a little at a time.
let checked = 0;
function checkOne() {
  const place = checked++, [, label, probability] = page.facts[place];
  if (label === undefined) return;  // of training images nothing is recorded
  const found = softmax(compute(recordedModel, pictures[place])), best = found.indexOf(Math.max(...found));
  if (agrees(found, label, probability)) return;
  turnOff(`For test image ${page.pictures[place][1]} the page computes ${page.classes[best]}, ${found[best].toFixed(4)}; recorded is ${page.classes[label]}, ${probability.toFixed(4)}.`);
}

async function checkAll() {
  for (let since = performance.now(); !off && checked < pictures.length; checkOne()) {
    if (performance.now() - since < 8) continue;
    await new Promise((go) => setTimeout(go, pointer === null ? 0 : 300));
    since = performance.now();
  }
}

// Does anything that the page carries look like it? A model alone is as sure of a face as of a 0.

function outline(image) {  // blurred over 3 x 3 pixels, of length 1
  const sums = new Float64Array(PIXELS);
  for (let i = 0; i < PIXELS; i++) {
    if (!image[i]) continue;
    const x = i % WIDTH, y = (i - x) / WIDTH;
    for (let v = Math.max(0, y - 1); v <= Math.min(HEIGHT - 1, y + 1); v++) {
      for (let u = Math.max(0, x - 1); u <= Math.min(WIDTH - 1, x + 1); u++) sums[v * WIDTH + u] += image[i];
    }
  }
  const length = Math.hypot(...sums) || 1;
  return sums.map((value) => value / length);
}

// The mean over the channels, and for grey the picture itself.
function inkOf(image) {
  if (CHANNELS === 1) return image;
  const ink = new Float64Array(PIXELS);
  for (let i = 0; i < image.length; i++) ink[i % PIXELS] += image[i] / CHANNELS;
  return ink;
}

const outlines = pictures.map((picture) => outline(inkOf(picture)));
const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };
function isFamiliar(image) {  // the nearest of 99 in 100 drawn digits is nearer than this
  const drawn = outline(inkOf(image));
  return outlines.some((known) => dot(drawn, known) > 0.76);
}

// Why: how much each pixel's ink raised (above 0) or lowered each class's score

function weighed(image) {
  return page.classes.map((_, c) => image.map((ink, i) => ink * tensors[WEIGHT][c * PIXELS + i]));
}

// Cover the ink patch by patch and look again; a pixel gets the mean over the patches that cover it.
// Returns null as soon as nobody wants it any more.
async function covered(image, isWanted) {
  const logits = logitsOf(image), side = Math.max(2, Math.round(WIDTH / 6)), stride = Math.ceil(side / 3);
  const sums = page.classes.map(() => new Float64Array(PIXELS)), times = new Float64Array(PIXELS);
  const ink = inkOf(image);
  let since = performance.now();
  for (let top = 1 - side; top < HEIGHT; top += stride) {
    for (let left = 1 - side; left < WIDTH; left += stride) {
      const without = image.slice(), patch = [];
      for (let y = Math.max(0, top); y < Math.min(HEIGHT, top + side); y++) {
        for (let x = Math.max(0, left); x < Math.min(WIDTH, left + side); x++) {
          const i = y * WIDTH + x;
          if (!ink[i]) continue;
          patch.push(i);
          for (let channel = 0; channel < CHANNELS; channel++) without[channel * PIXELS + i] = 0;
        }
      }
      if (!patch.length) continue;
      const rest = logitsOf(without);
      for (const i of patch) {
        times[i] += 1;
        for (let c = 0; c < CLASSES; c++) sums[c][i] += logits[c] - rest[c];
      }
      if (performance.now() - since > 8) {  // let the pen through
        await new Promise((go) => setTimeout(go));
        if (!isWanted()) return null;
        since = performance.now();
      }
    }
  }
  return sums.map((sum) => sum.map((value, i) => ink[i] ? ink[i] * value / times[i] : 0));
}

// Painting

const FOR = [31, 102, 190], AGAINST = [205, 62, 38];

// Blue above 0, red below; full colour from `scale` on. Grey ink lies under it, where there is some.
function paint(canvas, width, height, values, scale, ink = null) {
  const cells = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const value = values ? values[i] : 0, colour = value > 0 ? FOR : AGAINST;
    const opacity = Math.min(1, Math.abs(value) / scale), grey = ink ? 0.22 * ink[i] * (1 - opacity) : 0, all = opacity + grey;
    for (let part = 0; part < 3 && all; part++) cells.data[4 * i + part] = (colour[part] * opacity + 128 * grey) / all;
    cells.data[4 * i + 3] = 255 * all;
  }
  put(canvas, cells);
}

function paintPicture(canvas, image) {  // three channels in their colours, others as ink
  const cells = new ImageData(WIDTH, HEIGHT), ink = image && CHANNELS !== 3 ? inkOf(image) : null;
  for (let i = 0; i < PIXELS && image; i++) {
    for (let part = 0; part < 3 && !ink; part++) cells.data[4 * i + part] = 255 * image[part * PIXELS + i];
    cells.data[4 * i + 3] = ink ? 255 * ink[i] : 255;
  }
  put(canvas, cells);
}

function put(canvas, cells) {
  if (canvas.width !== cells.width || canvas.height !== cells.height) [canvas.width, canvas.height] = [cells.width, cells.height];
  canvas.getContext("2d").putImageData(cells, 0, 0);
}

const largest = (lists) => lists.reduce((most, list) => list.reduce((m, value) => Math.max(m, Math.abs(value)), most), 1e-9);

// Lay maps (count, height, width) side by side; a gap of one cell stays empty between them.
function paintMosaic(canvas, values, [count, height, width], across, scale) {
  const wide = across * (width + 1) - 1, high = Math.ceil(count / across) * (height + 1) - 1, cells = new Float64Array(wide * high);
  for (let i = 0; i < count * height * width; i++) {
    const map = Math.floor(i / (height * width)), y = Math.floor(i / width) % height, x = i % width;
    cells[(Math.floor(map / across) * (height + 1) + y) * wide + (map % across) * (width + 1) + x] = values[i];
  }
  paint(canvas, wide, high, cells, scale);
}

// The same for weights (count, 3, height, width): each channel a colour, zero a grey.
function paintColours(canvas, values, [count, height, width], across, scale) {
  const wide = across * (width + 1) - 1, high = Math.ceil(count / across) * (height + 1) - 1, cells = new ImageData(wide, high);
  for (let i = 0; i < values.length; i++) {
    const map = Math.floor(i / (3 * height * width)), part = Math.floor(i / (height * width)) % 3, y = Math.floor(i / width) % height, x = i % width;
    const to = 4 * ((Math.floor(map / across) * (height + 1) + y) * wide + (map % across) * (width + 1) + x);
    cells.data[to + part] = 127.5 + 127.5 * values[i] / scale;
    cells.data[to + 3] = 255;
  }
  put(canvas, cells);
}

function drawStrokes(context, strokes, width, place) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach((point) => context.lineTo(...place(point)));
    if (stroke.length === 1) context.lineTo(...place(stroke[0]));
    context.stroke();
  }
}

// What is on the board, and what the page says of it

let strokes = [], loaded = null;     // loaded: a place in `pictures`, or null
let image = null;                    // what the model sees, or null: nothing
let logits = [], found = [], evidence = null, rival = null;
let pointer = null;                  // the one that draws, while it is down
const past = [];                     // for undo

const board = $("board"), pen = board.getContext("2d");
const percent = (p) => p >= 0.995 ? ">99%" : p < 0.005 ? "<1%" : `${Math.round(100 * p)}%`;
const points = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
const ranked = () => found.map((_, c) => c).sort((a, b) => found[b] - found[a]);

function look() {  // at the board: everything that must keep up with the pen
  const kept = withoutSpecks(strokes);
  image = loaded !== null ? pictures[loaded] : strokes.length ? formOf(kept) : null;
  logits = image && !off ? logitsOf(image) : [];
  found = image && !off ? softmax(logits) : [];
  showBoard(kept);
  showAnswer();
  explain();
}

function showBoard(kept) {
  pen.clearRect(0, 0, board.width, board.height);
  board.classList.toggle("loaded", loaded !== null);
  $("hint").hidden = image !== null;
  paintPicture($("seen"), image);
  if (loaded !== null) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage($("seen"), 0, 0, board.width, board.height);
  } else if (strokes.length) {
    const scale = board.width, place = ([x, y]) => [x * scale, y * scale];
    const width = pointer === null ? frame(kept).pen : Math.max(0.04, frame(kept).pen);
    pen.globalAlpha = 0.25;
    drawStrokes(pen, strokes.filter((stroke) => !kept.includes(stroke)), width * scale, place);
    pen.globalAlpha = 1;
    drawStrokes(pen, kept, width * scale, place);
  }
}

// The same text again would have the browser lay the page out again.
function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function showRecorded() {  // where the page computes nothing
  const [, label, probability] = loaded === null ? [] : page.facts[loaded], isKnown = label !== undefined;
  $("answer").classList.toggle("waiting", !isKnown);
  $("answer").dataset.digit = isKnown ? label : "";
  $("answer").dataset.probability = isKnown ? probability : "";
  write("glyph", isKnown ? page.classes[label] : "?");
  $("glyph").classList.toggle("word", isKnown && page.classes[label].length > 2);
  write("doubt", isKnown ? `${percent(probability)}, as recorded` : loaded === null ? "Nothing yet" : "no answer is recorded");
  write("runner", loaded === null ? "Press a picture below." : "");
  write("truth", loaded === null ? "" : truthOf(loaded));
}

function showAnswer() {
  if (off) { showRecorded(); return; }
  const [best, next] = ranked(), box = $("answer"), p = found[best], isKnown = image !== null && p >= 0.5 && isFamiliar(image);
  const guess = (c) => `${page.classes[c]}: ${percent(found[c])}`;
  box.classList.toggle("waiting", pointer !== null || !isKnown);
  box.dataset.digit = image ? best : "";
  box.dataset.probability = image ? p : "";
  write("glyph", image ? page.classes[best] : "?");
  $("glyph").classList.toggle("word", image !== null && page.classes[best].length > 2);
  write("doubt", !image ? "Nothing yet" : !isKnown ? `no ${page.kind} I know` : `${p >= 0.95 ? "surely" : p >= 0.75 ? "probably" : "perhaps"}, ${percent(p)}`);
  write("runner", !image ? "Draw, or press Example." : isKnown ? `if not, ${guess(next)}` : `the nearest, ${guess(best)}; then ${guess(next)}`);
  paintPicture($("then"), image);
  write("then-glyph", image ? page.classes[best] : "");
  write("then-doubt", image ? percent(p) : "nothing yet");
  write("truth", demo && loaded === null ? "An example. Draw your own: the first touch clears it." : loaded === null ? "" : truthOf(loaded));
}

function truthOf(place) {
  const [split, row] = page.pictures[place];
  return `${split === "train" ? "training" : "test"} image ${row}: it is ${page.classes[page.facts[place][0]]}`;
}

function announce() {
  $("say").textContent = image ? [$("glyph"), $("doubt"), $("runner"), $("truth")].map((e) => e.textContent).filter(Boolean).join(", ") : "The board is empty.";
}

let weightScale = 1;  // one colour scale for all classes

function showTiles() {
  const [best] = ranked(), against = rivalOf();
  const scale = evidence && !LINEAR ? largest(evidence) : 1;
  [...$("tiles").children].forEach((tile, c) => {
    const [canvas, bar, caption] = tile.children;
    if (LINEAR) {  // the weights: pale, and strong where there is ink
      const weight = tensors[WEIGHT].subarray(c * PIXELS, (c + 1) * PIXELS);
      paint(canvas, WIDTH, HEIGHT, image ? weight.map((value, i) => value * (0.16 + 0.84 * image[i])) : weight, weightScale, image);
    } else paint(canvas, WIDTH, HEIGHT, evidence?.[c], scale, image && inkOf(image));
    bar.style.setProperty("--part", image ? found[c] : 0);
    caption.lastChild.textContent = image && found[c] >= 0.005 ? `${Math.min(99, Math.round(100 * found[c]))}%` : "";
    tile.classList.toggle("best", Boolean(image) && c === best);
    tile.classList.toggle("rival", Boolean(image) && c === against);
    tile.setAttribute("aria-pressed", Boolean(image) && c === against);
  });
}

// What may come a moment after the pen: one at a time, always of the newest picture. While the pen
// is down it waits, where it takes longer than a frame until the pen rests: most frames have only
// the board and the answer to draw.
let looks = 0, isExplaining = false, took = 0;  // took: milliseconds, the last time
async function explain() {
  looks += 1;
  if (isExplaining || off || MANY) return;
  isExplaining = true;
  for (let seen = 0; seen !== looks;) {
    seen = looks;
    await new Promise((go) => setTimeout(go, pointer === null ? 0 : 200));
    const isWanted = () => pointer === null || seen === looks;
    if (took > 16 && !isWanted()) continue;
    seen = looks;
    const started = performance.now();
    const explained = !image ? null : LINEAR ? weighed(image) : await covered(image, isWanted);
    if (image && !explained) continue;
    if (off) break;  // meanwhile
    evidence = explained;
    showTiles();
    showWhy();
    showWay();
    showScores();
    took = performance.now() - started;
  }
  isExplaining = false;
}

const rivalOf = () => { const [best, next] = ranked(); return rival === null || rival === best ? next : rival; };
const sumOf = (values, sign) => values.reduce((sum, value) => sum + (value * sign > 0 ? value : 0), 0);

function showWhy() {
  const [best] = ranked(), other = rivalOf(), canCompare = image !== null && evidence !== null;
  const [a, b] = [best, other].map((c) => page.classes[c]);
  $("why-title").textContent = canCompare ? `Why ${a} and not ${b}?` : "Why?";
  $("teach").hidden = !canCompare || Boolean(page.untrainable);
  const difference = canCompare ? evidence[best].map((value, i) => value - evidence[other][i]) : null;
  paint($("difference"), WIDTH, HEIGHT, difference, difference ? largest([difference]) / 1.4 : 1, image && inkOf(image));
  if (!canCompare) {
    $("why-text").textContent = LINEAR ? `The ${CLASSES} pictures are the whole model. Ink on blue speaks for a ${page.kind}, ink on red against it.`
      : `The pictures show which ink raised the score of a ${page.kind}, in blue, and which lowered it, in red.`;
    return;
  }
  const lead = logits[best] - logits[other], times = Math.exp(lead);
  const factor = times < 10 ? times.toFixed(1) : times < 1e6 ? Math.round(times).toLocaleString("en") : "more than a million";
  const parts = LINEAR ? `Ink on blue: <b class="for" id="why-for">${points(sumOf(difference, 1))}</b> for ${a}. Ink on red: <b class="against" id="why-against">${
    points(sumOf(difference, -1))}</b>, for ${b}. Bias: <b id="why-bias">${points(tensors[BIAS][best] - tensors[BIAS][other])}</b>. `
    : `<b class="for">Blue</b> ink made the difference for ${a}, <b class="against">red</b> ink for ${b}. `;
  $("why-text").innerHTML = `${parts}${LINEAR ? "Together" : "In all"}, ${a} leads by <b id="why-lead">${lead.toFixed(2)}</b> points: ${factor} times as likely. Press another picture to compare with it.`;
  $("step").textContent = `No, this is ${b}`;
}

function showWay() {
  const drawn = loaded === null && strokes.length > 0, kept = withoutSpecks(strokes);
  for (const id of ["cropped", "scaled"]) {
    const context = $(id).getContext("2d"), width = $(id).width;
    context.clearRect(0, 0, width, width);
    if (!drawn) continue;
    const { left, top, right, bottom, size, pen } = frame(kept), sizes = [right - left + pen, bottom - top + pen];
    context.setLineDash([6, 6]);
    context.lineWidth = 1;  // not the pen of the drawing before
    if (id === "cropped") {
      context.strokeRect((left - pen / 2) * width, (top - pen / 2) * width, sizes[0] * width, sizes[1] * width);
      context.setLineDash([]);
      context.globalAlpha = 0.25;
      drawStrokes(context, strokes.filter((stroke) => !kept.includes(stroke)), pen * width, (point) => point.map((at) => at * width));
      context.globalAlpha = 1;
      drawStrokes(context, kept, pen * width, (point) => point.map((at) => at * width));
    } else {
      const unit = width / Math.max(WIDTH, HEIGHT), side = box() * unit, scale = side / size, edge = (width - side) / 2;
      context.strokeRect(edge, edge, side, side);
      context.setLineDash([]);
      drawStrokes(context, kept, pen * scale, (point) => point.map((at, axis) => (at - [left, top][axis] + pen / 2) * scale + (width - sizes[axis] * scale) / 2));
    }
  }
}

function showScores() {
  const sides = page.classes.map((_, c) => !image ? [0, 0, 0] : LINEAR ? [sumOf(evidence[c], 1), sumOf(evidence[c], -1), logits[c]]
    : [Math.max(0, logits[c]), Math.min(0, logits[c]), logits[c]]);
  const most = largest(sides);
  [...$("scores").children].forEach((row, c) => {
    const [pro, contra, mark] = row.children[1].children, [plus, minus, score] = sides[c];
    pro.style.setProperty("--from", 0.5); pro.style.setProperty("--part", plus / most / 2);
    contra.style.setProperty("--from", 0.5 + minus / most / 2); contra.style.setProperty("--part", -minus / most / 2);
    mark.style.setProperty("--from", 0.5 + score / most / 2);
    row.lastChild.textContent = image ? points(score) : "";
  });
  if (LINEAR) return;
  const show = (node, x) => {
    if (!ACTIVE.includes(node.op)) return;
    const [maps, height = 1, width = 1] = node.shape, rows = maps % 32 ? 1 : maps / 32, single = height * width === 1;
    const shape = single ? [1, rows, maps / rows] : [maps, height, width];
    paintMosaic($(`layer-${node.name}`), x, shape, single ? 1 : Math.max(1, Math.min(maps, 120 / (width + 1) | 0)), largest([x]));
  };
  if (image) compute(model, image, show);
  else model.forEach((node) => show(node, []));
}

const ACTIVE = ["relu", "leaky_relu", "hardtanh"];  // the layers that are shown

function showWeights() {
  if (LINEAR) weightScale = largest([tensors[WEIGHT]]) / 2;
  const isShown = Boolean(page.first && tensors[page.first]);
  document.documentElement.classList.toggle("unseeable", !isShown);
  if (!isShown) return;
  const weight = tensors[page.first], [outputs, depth, ...kernel] = weight.shape.length === 4 ? weight.shape : [weight.shape[0], ...page.shape];
  const isColour = depth === 3, count = isColour ? outputs : outputs * depth, across = LINEAR ? Math.min(5, count) : count % 16 ? 8 : count > 64 ? 16 : 8;
  if (isColour) paintColours($("weights"), weight, [count, ...kernel], across, largest([weight]));
  else paintMosaic($("weights"), weight, [count, ...kernel], across, largest([weight]) / 1.5);
  $("weights").classList.toggle("signed", !isColour);
  $("weights-caption").textContent = LINEAR ? `From left to right, row by row: ${page.classes.join(", ")}.`
    : `${count} pictures of ${kernel[0]} by ${kernel[1]} weights, for ${outputs} outputs.`;
}

function use(changed, what = "") {  // other parameters than the recorded ones, or those again; in words, which
  tensors = changed;
  write("changed-what", what);
  $("changed").hidden = tensors === recorded;
  if (!off) model = build(page.graph, tensors, page.shape);
  showWeights();
  look();
}

// The board

function change(next, picture = null) {
  endDemo();
  past.push([strokes, loaded]);
  [strokes, loaded] = [next, picture];
}

function undo() {
  if (demo) { endDemo(); settle(); return; }
  if (pointer !== null || !past.length) return;
  [strokes, loaded] = past.pop();
  settle();
}

function clear() {
  if (image || demo) change([]);
  settle();
}

function settle() {  // the pen is up
  pointer = null;
  $("cursor").classList.remove("down");
  look();
  announce();
}

function load(place) {
  change([], place);
  rival = page.facts[place][1] === page.facts[place][0] ? null : page.facts[place][0];
  settle();
  $("instrument").scrollIntoView({ behavior: calm() ? "auto" : "smooth", block: "start" });
}

function begin(point) {
  endDemo();
  change([...strokes, [point]]);
  rival = null;
}

function extend(point) {
  const stroke = strokes.at(-1), [x, y] = stroke.at(-1);
  if (Math.hypot(point[0] - x, point[1] - y) >= 0.004) strokes[strokes.length - 1] = [...stroke, point];
}

const isUndrawable = () => Boolean(off) || CHANNELS !== 1;

// On opening an example draws itself. The first touch clears it; until then `demo` is the frame to come.

const EXAMPLES = [
  ["4", [[0.42, 0.18], [0.36, 0.34], [0.3, 0.54], [0.5, 0.54], [0.72, 0.53]], [[0.62, 0.26], [0.6, 0.5], [0.57, 0.86]]],
  ["2", [[0.3, 0.3], [0.38, 0.2], [0.52, 0.17], [0.64, 0.25], [0.63, 0.38], [0.5, 0.58], [0.3, 0.82], [0.5, 0.82], [0.72, 0.81]]],
  ["3", [[0.33, 0.22], [0.48, 0.16], [0.62, 0.24], [0.6, 0.38], [0.46, 0.47], [0.62, 0.55], [0.65, 0.7], [0.52, 0.83], [0.32, 0.78]]],
  ["0", [[0.5, 0.16], [0.36, 0.26], [0.31, 0.5], [0.37, 0.75], [0.5, 0.84], [0.64, 0.74], [0.69, 0.5], [0.63, 0.25], [0.5, 0.16]]],
  ["1", [[0.52, 0.16], [0.5, 0.5], [0.48, 0.84]]],
];
let demo = null;

function endDemo() {
  if (!demo) return;
  cancelAnimationFrame(demo.frame);
  [demo, strokes, loaded, pointer] = [null, [], null, null];
}

// The strokes of an example that the model reads rightly, or null: then a picture stands there.
function exampleStrokes() {
  if (isUndrawable() || page.kind !== "digit") return null;
  const isRead = ([name, ...drawn]) => {
    const form = formOf(drawn), probabilities = softmax(logitsOf(form)), label = page.classes.indexOf(name);
    return label >= 0 && probabilities[label] >= 0.75 && isFamiliar(form);
  };
  return EXAMPLES.find(isRead)?.slice(1) ?? null;
}

function partOf(drawn, length) {  // the first of the strokes, so long as one has drawn
  const part = [];
  for (const stroke of drawn) {
    const points = dense(stroke), count = Math.ceil(length / 0.02);
    if (count <= 0) break;
    part.push(points.slice(0, count));
    length -= points.length * 0.02 + 0.1;  // the pen moves on
  }
  return part;
}

function showFirst() {
  const drawn = exampleStrokes();
  demo = { frame: 0 };
  if (!drawn || calm()) {
    if (drawn) strokes = drawn;
    else loaded = page.cells.find(([, , place]) => place !== null)?.[2] ?? 0;
    look();
    return;
  }
  const whole = total(drawn.map((stroke) => dense(stroke).length * 0.02 + 0.1)), since = performance.now() + 400;
  pointer = "demo";
  const draw = (now) => {
    if (!demo) return;
    const part = (now - since) / 1800;
    if (part >= 1) {
      [strokes, pointer] = [drawn, null];
    } else {
      strokes = partOf(drawn, part * whole);
      demo.frame = requestAnimationFrame(draw);
    }
    look();
  };
  look();
  demo.frame = requestAnimationFrame(draw);
}

let isWaiting = false;
function lookSoon() {  // once for each frame, however many events came in
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; look(); });
}

function placeOf(event) {
  const area = board.getBoundingClientRect();
  return [clamp((event.clientX - area.left) / area.width, 1), clamp((event.clientY - area.top) / area.height, 1)];
}

let pointerType = "", brokenOff = null;  // brokenOff: the stroke that the browser ended
board.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || isUndrawable()) return;
  endDemo();
  const isPenAfterTouch = event.pointerType === "pen" && pointerType === "touch";
  if (pointer !== null && !isPenAfterTouch) return;
  // A palm came before the pen.
  if (isPenAfterTouch && (pointer !== null || (brokenOff && brokenOff === strokes.at(-1)))) [strokes, loaded] = past.pop();
  pointer = event.pointerId;
  pointerType = event.pointerType;
  board.setPointerCapture(pointer);
  begin(placeOf(event));
  lookSoon();
});
board.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const steps = event.getCoalescedEvents?.() ?? [];
  for (const step of steps.length ? steps : [event]) extend(placeOf(step));
  lookSoon();
});
board.addEventListener("pointerup", (event) => { if (event.pointerId === pointer) settle(); });
board.addEventListener("lostpointercapture", (event) => { if (event.pointerId === pointer) settle(); });
board.addEventListener("pointercancel", (event) => {
  if (event.pointerId !== pointer) return;
  brokenOff = strokes.at(-1);
  if (brokenOff.length === 1) [strokes, loaded] = past.pop();  // what one has drawn stays; a touch alone goes
  settle();
});
// The browser might take a finger's stroke for scrolling, or a finger that rests for a press that asks for a
// menu, and end the stroke: touch-action is unknown to old ones, and to a busy one that has not yet painted.
for (const kind of ["touchstart", "touchmove"]) {
  board.addEventListener(kind, (event) => { if (!isUndrawable()) event.preventDefault(); }, { passive: false });
}
board.addEventListener("contextmenu", (event) => event.preventDefault());

let cursor = [0.5, 0.5];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
board.addEventListener("keydown", (event) => {
  if (isUndrawable()) return;
  if (event.key === " ") endDemo();
  const arrow = ARROWS[event.key], isDown = pointer === "keys";
  if (arrow) {
    cursor = cursor.map((at, axis) => clamp(at + arrow[axis] * (event.shiftKey ? 0.01 : 0.04), 1));
    if (isDown) { extend(cursor); lookSoon(); }
  } else if (event.key === " " && isDown) settle();
  else if (event.key === " " && pointer === null) { pointer = "keys"; begin(cursor); lookSoon(); }
  else if (event.key === "Escape") { pointer = null; clear(); }
  else return;
  event.preventDefault();
  $("cursor").classList.toggle("down", pointer === "keys");
  placeCursor();
});
board.addEventListener("blur", () => { if (pointer === "keys") settle(); });
function placeCursor() { Object.assign($("cursor").style, { left: `${100 * cursor[0]}%`, top: `${100 * cursor[1]}%` }); }
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  undo();
});

