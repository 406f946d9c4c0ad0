// Training, for softmax regression. These functions also run in a worker, which gets them as text, and in Node.
// Every sum is of whole steps and fits a float64's 53 bits, so that none of them rounds, in any order.

function softmaxErrors(logits, label, [whole, fine, finer]) {  // derivative of the loss; exp from tables, as in src/exact
  const most = Math.max(...logits), last = whole.length * 2 ** 14 - 1;
  const powers = Array.from(logits, (logit) => {
    const at = Math.min(snap((most - logit) * 2 ** 14, 1), last);
    return snap(whole[at >> 14] * fine[(at >> 7) & 127] * finer[at & 127], 2 ** -40);
  });
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power, c) => snap(power / total - (c === label ? 1 : 0), 2 ** -16));
}

// One step of gradient descent on rows of `pixels` (rows, inputs). `state` holds weight (classes, inputs), bias and velocities.
function descend(state, pixels, labels, rows, rate, momentum, tables) {
  const classes = state.bias.length, inputs = state.weight.length / classes, scale = rate / rows.length;
  const enter = (values) => {
    const snapped = new Float64Array(values.length), step = 2 ** -18;
    for (let i = 0; i < values.length; i++) snapped[i] = snap(Math.max(-16, Math.min(16, values[i])), step);
    return snapped;
  };
  const weight = enter(state.weight), bias = enter(state.bias);
  const slopes = new Float64Array(weight.length), biasSlopes = new Float64Array(classes);
  const at = new Uint32Array(inputs), ink = new Float64Array(inputs);  // where there is ink in an image, and how much
  for (const row of rows) {
    let count = 0;
    for (let i = 0; i < inputs; i++) {
      const level = pixels[row * inputs + i];
      if (level) { at[count] = i; ink[count++] = level; }
    }
    const logits = bias.map((start, c) => {
      let sum = start;
      for (let k = 0; k < count; k++) sum += weight[c * inputs + at[k]] * ink[k];
      return sum;
    });
    softmaxErrors(logits, labels[row], tables).forEach((error, c) => {
      if (error) for (let k = 0; k < count; k++) slopes[c * inputs + at[k]] += error * ink[k];
      biasSlopes[c] += error;
    });
  }
  const update = (values, velocities, slopes) => {  // as `SGD` in src/exact/optim.py, to the bit
    for (let i = 0; i < values.length; i++) {
      if (momentum) {
        velocities[i] = velocities[i] * momentum + slopes[i] / rows.length;
        values[i] -= velocities[i] * rate;
      } else values[i] -= slopes[i] * scale;
    }
  };
  update(state.weight, state.weightVelocity, slopes);
  update(state.bias, state.biasVelocity, biasSlopes);
}

function sha256(content) {  // FIPS 180-4; crypto.subtle is missing from files on disk in some browsers
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (x) => Math.floor((x % 1) * 2 ** 32) | 0, turn = (x, n) => (x >>> n) | (x << (32 - n));
  const constants = primes.map((prime) => fraction(Math.cbrt(prime))), state = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
  const padded = new Uint8Array(Math.ceil((content.length + 9) / 64) * 64), view = new DataView(padded.buffer);
  padded.set(content);
  padded[content.length] = 0x80;
  view.setUint32(padded.length - 4, content.length * 8);
  for (let block = 0; block < padded.length; block += 64) {
    const w = Array.from({ length: 16 }, (_, i) => view.getInt32(block + 4 * i));
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      w[i] = (w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10))) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0;
      const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] = (state[i] + value) | 0; });
  }
  return state.map((value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
}

// NumPy's default_rng([seed, epoch]).permutation(count): SeedSequence, PCG64, and a swap for each place.
function permutation(seed, epoch, count) {
  const mask = 2n ** 128n - 1n, words = [];
  for (let number of [BigInt(seed), BigInt(epoch)]) do { words.push(Number(number & 0xffffffffn)); number >>= 32n; } while (number);
  let hash = 0x43b0d7e5;
  const mixed = (value) => { value ^= hash; hash = Math.imul(hash, 0x931e8875); value = Math.imul(value, hash); return (value ^ (value >>> 16)) >>> 0; };
  const joined = (a, b) => { const value = (Math.imul(a, 0xca01f9dd) - Math.imul(b, 0x4973f715)) | 0; return (value ^ (value >>> 16)) >>> 0; };
  const pool = [0, 1, 2, 3].map((i) => mixed(words[i] ?? 0));
  for (let from = 0; from < 4; from++) for (let to = 0; to < 4; to++) if (from !== to) pool[to] = joined(pool[to], mixed(pool[from]));
  for (const word of words.slice(4)) for (let to = 0; to < 4; to++) pool[to] = joined(pool[to], mixed(word));
  hash = 0x8b51f9dd;
  const seeds = Array.from({ length: 8 }, (_, i) => {
    let value = pool[i % 4] ^ hash;
    hash = Math.imul(hash, 0x58f38ded);
    value = Math.imul(value, hash);
    return BigInt((value ^ (value >>> 16)) >>> 0);
  });
  const pair = (i) => seeds[i] | (seeds[i + 1] << 32n), wide = (i) => (pair(i) << 64n) | pair(i + 2);
  const increment = ((wide(4) << 1n) | 1n) & mask, advance = () => { state = (state * 0x2360ed051fc65da44385df649fccf645n + increment) & mask; };
  let state = increment, spare = null;
  state = (state + wide(0)) & mask;
  advance();
  const next32 = () => {
    if (spare !== null) { const kept = spare; spare = null; return kept; }
    advance();
    const folded = ((state >> 64n) ^ state) & 0xffffffffffffffffn, by = state >> 122n;
    const turned = ((folded >> by) | (folded << (64n - by))) & 0xffffffffffffffffn;
    spare = turned >> 32n;
    return turned & 0xffffffffn;
  };
  const upTo = (most) => {
    const bits = 2 ** (32 - Math.clz32(most)) - 1;
    for (;;) {
      const drawn = Number(next32() & BigInt(bits));
      if (drawn <= most) return drawn;
    }
  };
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = upTo(i);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

async function readRows(file, inputs) {  // data/prepared/train.safetensors: images float32 (rows, C, H, W), labels int64 (rows,)
  const length = new DataView(await file.slice(0, 8).arrayBuffer()).getUint32(0, true);
  const head = length < 1e6 ? JSON.parse(await file.slice(8, 8 + length).text()) : {};
  const part = ([from, to]) => file.slice(8 + length + from, 8 + length + to).arrayBuffer();
  if (head.images?.dtype !== "F32" || product(head.images.shape.slice(1)) !== inputs || head.labels?.dtype !== "I64") throw new Error("other tensors");
  const halves = new Int32Array(await part(head.labels.data_offsets));
  return { pixels: new Float32Array(await part(head.images.data_offsets)), labels: halves.filter((_, i) => i % 2 === 0) };
}

async function trainInWorker({ pixels, labels, recipe, weight, bias, tables }) {
  const state = { weight, bias, weightVelocity: new Float64Array(weight.length), biasVelocity: new Float64Array(bias.length) };
  const count = labels.length, size = recipe.batch_size, batches = recipe.drop_last ? Math.floor(count / size) : Math.ceil(count / size);
  if (!batches) throw new Error(`it has ${count} rows, less than a batch`);
  // With patience the epochs may be fewer than the schedule's.
  const planned = recipe.epochs * batches, steps = recipe.epochs_run * batches, natural = Uint32Array.from(labels, (_, i) => i);
  for (let step = 0, told = 0, order = natural; step < steps; step++) {
    const batch = step % batches, epoch = Math.floor(step / batches) + 1, isLast = batch === batches - 1;
    if (batch === 0 && recipe.shuffle) order = permutation(recipe.seed, epoch, count);
    const rate = recipe.schedule === "linear" ? recipe.learning_rate * ((planned - step) / planned) : recipe.learning_rate;
    const rows = order.subarray(batch * size, (batch + 1) * size);
    descend(state, pixels, labels, rows, rate, recipe.momentum, tables);
    if (!isLast && performance.now() - told < 150) continue;
    told = performance.now();
    const hash = isLast ? sha256(new Uint8Array(Float64Array.from([...weight, ...bias]).buffer)).slice(0, 8) : "";
    postMessage({ part: (step + 1) / steps, epoch, hash, weight, bias });
  }
}

