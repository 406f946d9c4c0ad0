// The essay: its figures, and the training that one watches. The page starts at the end of this file.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function pictureButton(place, caption, label) {
  const canvas = element("canvas", { className: "ink" });
  paintPicture(canvas, pictures[place]);
  const button = element("button", {}, canvas, ...(caption ? [element("span", { textContent: caption })] : []));
  if (label) button.setAttribute("aria-label", label);
  button.addEventListener("click", () => load(place));
  return button;
}

function makeTilesAndScores() {
  if (MANY) return;
  page.classes.forEach((name, c) => {
    const compare = () => { rival = c; explain(); };
    const tile = element("button", {}, element("canvas", { className: "signed" }), element("i", { className: "bar" }),
      element("span", {}, element("b", { textContent: name }), " ", element("span")));
    const range = element("span", { className: "range" }, element("i"), element("i", { className: "against" }), element("u"));
    const row = element("button", {}, element("span", { textContent: name }), range, element("span"));
    for (const [button, parent] of [[tile, $("tiles")], [row, $("scores")]]) {
      button.addEventListener("click", compare);
      parent.append(button);
    }
  });
  document.body.classList.toggle("ten", CLASSES === 10);
  $("tiles").classList.toggle("many", CLASSES > 10);
  document.body.classList.toggle("named", page.classes.some((name) => name.length > 2));
  $("scores-caption").textContent = LINEAR ? "Blue: what the ink gives. Red: what the ink takes away. Line: the score, bias included." : "The scores of the drawing on the board.";
}

function makeLayers() {
  for (const { op, name, module, shape: [maps, height = 1, width = 1] } of off || LINEAR || MANY ? [] : model) {
    if (!ACTIVE.includes(op)) continue;
    const what = height * width === 1 ? `${maps} numbers` : `${maps} maps of ${height} by ${width}`;
    $("inside").append(element("div", {}, element("canvas", { id: `layer-${name}`, className: "signed" }),
      element("div", { className: "small", textContent: `Layer ${module ?? name}: ${what}` })));
  }
}

function makeMistakes() {
  for (const place of page.mistakes) {
    const [actual, predicted, confidence] = page.facts[place], [is, taken] = [actual, predicted].map((c) => page.classes[c]);
    const button = pictureButton(place, `${is} as ${taken} ${percent(confidence)}`);
    Object.assign(button.dataset, { row: page.pictures[place][1], actual, predicted, confidence });
    $("mistakes").append(button);
  }
  for (const place of page.samples) $("samples").append(pictureButton(place, "", `training image ${page.pictures[place][1]}: ${page.classes[page.facts[place][0]]}`));
  $("train-count").textContent = page.train_rows.toLocaleString("en");
}

function makeConfusions() {  // of many classes: the most frequent mistakes, as a list
  const rows = page.cells.filter(([actual, predicted]) => actual !== predicted).slice(0, 50);
  $("matrix").classList.add("list");
  $("matrix").append(element("tbody", {}, ...rows.map(([actual, predicted, place, count]) => {
    const button = element(place === null ? "span" : "button", { textContent: count });
    if (place !== null) button.addEventListener("click", () => load(place));
    return element("tr", {}, element("th", { textContent: `${page.classes[actual]} as ${page.classes[predicted]}`, scope: "row" }), element("td", {}, button));
  })));
}

function makeMatrix() {
  if (MANY) { makeConfusions(); return; }
  const places = new Map(page.cells.filter(([, , place]) => place !== null).map(([actual, predicted, place]) => [`${actual},${predicted}`, place]));
  const head = (text, scope) => element("th", { textContent: text, scope });
  const table = $("matrix");
  table.append(element("thead", {}, element("tr", {}, element("td"), ...page.classes.map((name) => head(name, "col")), head("F1", "col"))));
  table.append(element("tbody", {}, ...page.confusion.map((counts, actual) => {
    const total = counts.reduce((a, b) => a + b) || 1;
    return element("tr", {}, head(page.classes[actual], "row"), ...counts.map((count, predicted) => {
      const place = places.get(`${actual},${predicted}`), cell = element("td", {}, count && place === undefined ? String(count) : "");
      if (place !== undefined) {
        const button = element("button", { textContent: count });
        button.setAttribute("aria-label", `${count} times ${page.classes[actual]} read as ${page.classes[predicted]}`);
        button.addEventListener("click", () => load(place));
        cell.append(button);
      }
      Object.assign(cell.dataset, { actual, predicted });
      cell.className = actual === predicted ? "right" : "";
      cell.style.setProperty("--part", Math.sqrt(count / total));
      return cell;
    }), element("td", { className: "f1", textContent: page.f1[actual].toFixed(3) }));
  })));
}

function makeDoubts() {
  for (const { from, confidence, accuracy, rows, picture } of page.doubt) {
    const bar = element("i"), mark = element("u");
    bar.style.setProperty("--from", 0); bar.style.setProperty("--part", accuracy); mark.style.setProperty("--from", confidence);
    const row = element(picture === null ? "div" : "button", {}, element("span", { textContent: `${Math.round(100 * from)}\u2013${Math.round(100 * from) + 10}%` }),
      element("span", { className: "range" }, bar, mark), element("span", { textContent: `${(100 * accuracy).toFixed(1)}% of ${rows.toLocaleString("en")}` }));
    if (picture !== null) row.addEventListener("click", () => load(picture));
    $("doubts").append(row);
  }
}

function makeChart(title, key, format) {
  const [width, height, left, right, bottom] = [320, 180, 44, 66, 24], values = page.curve.map((row) => row[key]);
  const [low, high] = [Math.min(...values), Math.max(...values)], last = page.recipe.epochs_run;
  const x = (epoch) => left + (width - left - right) * epoch / last;
  const y = (value) => 24 + (height - bottom - 40) * (high > low ? (high - value) / (high - low) : 0.5);
  const text = (at, line, anchor, content) => `<text x="${at}" y="${line}" text-anchor="${anchor}">${content}</text>`;
  const lines = ["train", "validation", "test"].map((split) => page.curve.filter((row) => row.split === split)).filter((rows) => rows.length);
  const names = lines.map((rows) => y(rows.at(-1)[key]) + 4);  // where the names of the lines stand: not one on another
  const near = 12 - Math.abs(names[0] - names[1]), upper = names[0] < names[1] ? 0 : 1;
  if (near > 0) { names[upper] -= near / 2; names[1 - upper] += near / 2; }
  const series = lines.map((rows, at) => {
    const { split, epoch: end } = rows.at(-1);
    const dots = rows.map((row) => `<circle r="3.5" cx="${x(row.epoch)}" cy="${y(row[key])}" data-split="${split}" data-epoch="${row.epoch}" data-value="${row[key]}">` +
      `<title>epoch ${row.epoch}, ${split}: ${format(row[key])}</title></circle>`).join("");
    return `<g class="${split}"><polyline points="${rows.map((row) => `${x(row.epoch)},${y(row[key])}`).join(" ")}"/>${dots}${text(x(end) + 8, names[at], "start", split)}</g>`;
  });
  const grid = [low, high].map((value) => `<line x1="${left}" x2="${width - right}" y1="${y(value)}" y2="${y(value)}"/>${text(left - 6, y(value) + 4, "end", format(value))}`);
  const marks = [0, last].map((epoch) => text(x(epoch), height - 4, "middle", epoch ? `epoch ${epoch}` : "0"));
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title} after each epoch" data-key="${key}" data-from="${x(0)}" data-to="${x(last)}"><line class="now" y1="20" y2="${height - bottom}"/>${text(0, 10, "start", title)}${grid.join("")}${marks.join("")}${series.join("")}</svg>`;
}

function stateOf(changed) {
  const [weight, bias] = [changed[WEIGHT].slice(), changed[BIAS].slice()];
  return { weight, bias, weightVelocity: new Float64Array(weight.length), biasVelocity: new Float64Array(bias.length) };
}

const tables = page.exp.map((part) => new Float64Array(bytes(part).buffer));
const snapped = ({ weight, bias }) => ({
  [WEIGHT]: Object.assign(weight.map((value) => snap(value, 2 ** -18)), { shape: recorded[WEIGHT].shape }),
  [BIAS]: Object.assign(bias.map((value) => snap(value, 2 ** -18)), { shape: recorded[BIAS].shape }),
});

function teach() {  // one step, the drawing being one row of the recipe's batch
  stopTraining();
  const state = stateOf(tensors), { learning_rate, batch_size } = page.recipe;
  descend(state, image, [rivalOf()], [0], learning_rate / batch_size, 0, tables);
  rival = rivalOf();
  use(snapped(state), "The model after one more step, on your drawing.");
  announce();
}

const recordedHashes = page.curve.filter((row) => row.split === "train").map((row) => row.sha256);
let worker = null;
function stopTraining() {
  if (!worker) return;
  worker.terminate();
  worker = null;
  if ($("train-progress").value < 1) write("train-hash", "Stopped.");
}

function train(file) {
  stopPlaying();
  stopTraining();
  const sources = [product, snap, softmaxErrors, descend, sha256, permutation, trainInWorker].map(String);
  const failing = `onmessage = ({ data }) => trainInWorker(data).catch((error) => postMessage({ error: String(error) }));`;
  const url = URL.createObjectURL(new Blob([sources.join("\n"), failing], { type: "text/javascript" }));
  const mine = worker = new Worker(url);
  URL.revokeObjectURL(url);
  for (const row of $("train-rows").children) row.lastChild.textContent = "";
  Object.assign($("train-hash").dataset, { epoch: "", hash: "" });
  $("train-hash").textContent = "Reading the file \u2026";
  worker.onmessage = ({ data }) => showTraining(data);
  const { weight, bias } = stateOf(unpackAll(page.start));
  // Read on the page's own thread: WebKit lets no worker of a page on disk read a file.
  readRows(file, weight.length / bias.length).then(
    (rows) => mine.postMessage({ ...rows, recipe: page.recipe, weight, bias, tables }, [rows.pixels.buffer, rows.labels.buffer]),
    (error) => { if (mine === worker) showTraining({ error: String(error) }); },
  );
}

function showTraining({ error, part, epoch, hash, weight, bias }) {
  if (error) {
    $("train-hash").textContent = `This file cannot be used (${error}). Choose data/prepared/train.safetensors of this pipeline.`;
    return;
  }
  $("train-progress").value = part;
  use(snapped({ weight, bias }), "The model that this page trains.");
  if (!hash) return;
  const cell = $("train-rows").children[epoch - 1].lastChild, isEqual = hash === recordedHashes[epoch - 1];
  cell.textContent = `${hash} ${isEqual ? "\u2713 the same" : "\u2717 differs"}`;
  const wrong = [...$("train-rows").children].some((row) => row.textContent.includes("\u2717"));
  Object.assign($("train-hash").dataset, { epoch, hash });
  $("train-hash").textContent = part < 1 ? `Epoch ${epoch} of ${page.recipe.epochs_run}: ${hash}`
    : wrong ? "The bits differ. Is this the file that the pipeline prepared, on which the model was trained?"
    : `All ${page.recipe.epochs_run} epochs ended in the recorded bits. The pictures above are now the ones that your browser trained.`;
}

// The way of the training: snapshots, and at its end the model itself.

const snapshots = [...page.history, { epoch: page.kept, step: null, tensors: null }];
const tensorsAt = (at) => (snapshots[at].tensors ? snapshots[at].own ??= unpackAll(snapshots[at].tensors) : recorded);
let playing = null;

function stopPlaying() {
  clearInterval(playing);
  playing = null;
  write("play", "Play");
}

function showMoment(at) {
  const { step, epoch } = snapshots[at], isLast = step === null;
  const when = isLast ? `Trained: after epoch ${epoch}` : step === 0 ? "The start" : Number.isInteger(epoch) ? `After epoch ${epoch}` : `After ${step === 1 ? "1 step" : `${step.toLocaleString("en")} steps`} of the first epoch`;
  stopTraining();
  use(tensorsAt(at), `The model ${isLast ? "" : step === 0 ? "at its start." : `${when[0].toLowerCase()}${when.slice(1)}.`}`);
  pointAt(at);
  write("when", when);
  $("moment").setAttribute("aria-valuetext", image ? `${when}. Read as ${$("then-glyph").textContent}, ${$("then-doubt").textContent}` : when);
}

function pointAt(at) {
  $("moment").value = at;
  for (const chart of $("curve").children) {
    const { from, to } = chart.dataset, x = Number(from) + (to - from) * snapshots[at].epoch / page.recipe.epochs_run;
    for (const end of ["x1", "x2"]) chart.querySelector(".now").setAttribute(end, x);
  }
}

function makeWatch() {
  const last = snapshots.length - 1;
  $("watch").hidden = !last || Boolean(off);
  $("moment").max = last;
  write("when", `Trained: after epoch ${page.kept}`);
  pointAt(last);
  $("moment").addEventListener("input", () => { stopPlaying(); showMoment($("moment").valueAsNumber); });
  $("play").addEventListener("click", () => {
    if (playing) { stopPlaying(); return; }
    const start = $("moment").valueAsNumber;
    let at = start === last ? 0 : start;
    showMoment(at);
    write("play", "Pause");
    playing = setInterval(() => { showMoment(++at); if (at === last) stopPlaying(); }, 900);
  });
}

function makeTraining() {
  $("untrainable").textContent = page.untrainable ?? "";
  $("untrainable").hidden = !page.untrainable;
  for (const id of ["trainer", "train-table", "train-words"]) $(id).hidden = Boolean(page.untrainable);
  if (page.untrainable) return;
  recordedHashes.forEach((hash, at) => $("train-rows").append(element("tr", {}, element("th", { textContent: at + 1, scope: "row" }),
    element("td", { className: "hash", textContent: hash }), element("td", { className: "hash" }))));
}

makeTilesAndScores();
makeLayers();
makeMistakes();
makeMatrix();
makeDoubts();
$("curve").innerHTML = makeChart("loss", "loss", (value) => value.toFixed(3)) + makeChart("accuracy", "accuracy", (value) => `${(100 * value).toFixed(2)}%`);
makeTraining();
makeWatch();
let example = 0;
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);
const shown = page.cells.filter(([, , place]) => place !== null);
$("example").addEventListener("click", () => load(shown[example++ % shown.length][2]));
$("step").addEventListener("click", teach);
$("reset").addEventListener("click", () => { stopPlaying(); showMoment(snapshots.length - 1); announce(); });
$("train-file").addEventListener("change", (event) => { if (event.target.files[0]) train(event.target.files[0]); });
placeCursor();
showOff();
for (let few = 0; few < 3 && !off && checked < pictures.length; few++) checkOne();
use(recorded);
if (!demo) showFirst();
checkAll();
