// The model: its numbers, its graph, and what it computes. Nothing here knows the page, so it also runs in Node.

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
function product(sizes) { return sizes.reduce((a, b) => a * b, 1); }

function unpackAll(tensors) {  // see `state` and `history` in page.py: float32, or 8 bits with a scale, as Float64Array with a shape
  return Object.fromEntries(Object.entries(tensors).map(([name, { shape, scale, values }]) => {
    const { buffer } = bytes(values);
    return [name, Object.assign(scale === undefined ? Float64Array.from(new Float32Array(buffer)) : Float64Array.from(new Int8Array(buffer), (value) => value * scale), { shape })];
  }));
}

function unpackPictures(text, levels, count, size) {  // see `pixels` in page.py
  const packed = bytes(text);
  let all = new Float64Array(count * size);
  if (!levels) all = Float64Array.from(new Float32Array(packed.buffer));
  else for (let at = 0, i = 0; at < packed.length; at++) {
    if (packed[at]) all[i++] = levels[packed[at]];
    else i += packed[++at];
  }
  return Array.from({ length: count }, (_, place) => all.subarray(place * size, (place + 1) * size));
}

function snap(x, step) {  // to the nearest multiple, ties to even
  const c = 6755399441055744 * step;  // 1.5 * 2^52
  return (x + c) - c;
}

function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}

// Layers. Each takes the node, the shapes of its inputs (of one image, so without the batch) and the model's
// tensors; it gives the shape of what it computes, and a function of the inputs' numbers, in C order.

function weightsOf(node, tensors) {
  const weight = tensors[`${node.module}.weight`];
  if (!weight) throw new Error(`the layer ${node.module} has no weight`);
  return [weight, tensors[`${node.module}.bias`]];
}

function linearLayer(node, [shape], tensors) {
  const [weight, bias] = weightsOf(node, tensors), [outputs, inputs] = weight.shape, rows = product(shape) / inputs;
  const byInput = new Float64Array(weight.length);  // (inputs, outputs): the innermost loop goes over neighbours
  for (let o = 0, from = 0; o < outputs; o++) for (let i = 0; i < inputs; i++) byInput[i * outputs + o] = weight[from++];
  return { shape: [...shape.slice(0, -1), outputs], run: (x) => {
    const sums = new Float64Array(rows * outputs);
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < outputs; o++) sums[row * outputs + o] = bias ? bias[o] : 0;
      for (let i = 0; i < inputs; i++) {
        const value = x[row * inputs + i];
        if (value) for (let o = 0; o < outputs; o++) sums[row * outputs + o] += byInput[i * outputs + o] * value;
      }
    }
    return sums;
  } };
}

// For each place of a line: the taps of the kernel that meet it, each followed by where its result stands.
function meetings(length, outputs, kernel, stride, padding, dilation) {
  return Array.from({ length }, (_, at) => Int32Array.from(Array.from({ length: kernel }, (_, tap) => [tap, (at + padding - tap * dilation) / stride])
    .filter(([, to]) => Number.isInteger(to) && to >= 0 && to < outputs).flat()));
}

const sizeAfter = (length, kernel, stride, padding, dilation) => Math.floor((length + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;

function conv2d(node, [[channels, height, width]], tensors) {
  const [weight, bias] = weightsOf(node, tensors), [outputs, depth, ...kernel] = weight.shape, { stride, padding, dilation, groups } = node;
  const [rows, columns] = [height, width].map((length, axis) => sizeAfter(length, kernel[axis], stride[axis], padding[axis], dilation[axis]));
  const [down, across] = [[height, rows], [width, columns]].map(([length, after], axis) =>
    meetings(length, after, kernel[axis], stride[axis], padding[axis], dilation[axis]));
  const taps = kernel[0] * kernel[1], share = outputs / groups, size = rows * columns;
  const byTap = new Float64Array(weight.length);  // (groups, depth, taps, share): the innermost loop goes over outputs
  for (let o = 0; o < outputs; o++) for (let d = 0; d < depth; d++) for (let t = 0; t < taps; t++) {
    byTap[((Math.floor(o / share) * depth + d) * taps + t) * share + o % share] = weight[(o * depth + d) * taps + t];
  }
  return { shape: [outputs, rows, columns], run: (x) => {
    const sums = new Float64Array(size * outputs);
    for (let channel = 0, i = 0; channel < channels; channel++) {
      const first = Math.floor(channel / depth) * share;
      for (let y = 0; y < height; y++) for (let left = 0; left < width; left++, i++) {
        const value = x[i], v = down[y], h = across[left];
        if (!value) continue;
        for (let a = 0; a < v.length; a += 2) for (let b = 0; b < h.length; b += 2) {
          const tap = (channel * taps + v[a] * kernel[1] + h[b]) * share, to = (v[a + 1] * columns + h[b + 1]) * outputs + first;
          for (let o = 0; o < share; o++) sums[to + o] += value * byTap[tap + o];
        }
      }
    }
    const maps = new Float64Array(sums.length);
    for (let o = 0; o < outputs; o++) for (let at = 0; at < size; at++) maps[o * size + at] = sums[at * outputs + o] + (bias ? bias[o] : 0);
    return maps;
  } };
}

function batchnorm(node, [shape], tensors) {
  const [mean, variance] = ["running_mean", "running_var"].map((part) => tensors[`${node.module}.${part}`]);
  if (!mean || !variance) throw new Error(`the layer ${node.module} has no running mean`);
  const weight = tensors[`${node.module}.weight`], bias = tensors[`${node.module}.bias`], size = product(shape) / mean.length;
  const scales = mean.map((_, c) => (weight ? weight[c] : 1) / Math.sqrt(variance[c] + node.eps));
  return { shape, run: (x) => {
    const found = new Float64Array(x.length);
    for (let c = 0, i = 0; c < mean.length; c++) for (const end = i + size; i < end; i++) found[i] = (x[i] - mean[c]) * scales[c] + (bias ? bias[c] : 0);
    return found;
  } };
}

// The largest number of each window; or, where there is a `count`, its sum by that: `count` takes how many places are
// inside the image, and how many there are with the padding.
function pooling({ kernel, stride, padding, dilation = [1, 1], ceil }, [channels, height, width], count = null) {
  if (ceil) throw new Error("pooling with ceil_mode");
  const [rows, columns] = [height, width].map((length, axis) => sizeAfter(length, kernel[axis], stride[axis], padding[axis], dilation[axis]));
  return windows([channels, height, width], [rows, columns], (row, axis) =>
    Array.from({ length: kernel[axis] }, (_, tap) => row * stride[axis] - padding[axis] + tap * dilation[axis]), count);
}

function windows([channels, height, width], [rows, columns], placesOf, count) {
  const [down, across] = [[rows, height], [columns, width]].map(([count, length], axis) => Array.from({ length: count }, (_, at) => {
    const places = placesOf(at, axis);
    return { inside: Int32Array.from(places.filter((place) => place >= 0 && place < length)), all: places.length };
  }));
  return { shape: [channels, rows, columns], run: (x) => {
    const found = new Float64Array(channels * rows * columns);
    for (let channel = 0, to = 0; channel < channels; channel++) for (const v of down) for (const h of across) {
      let most = -Infinity, sum = 0;
      for (let a = 0; a < v.inside.length; a++) for (let b = 0; b < h.inside.length; b++) {
        const value = x[(channel * height + v.inside[a]) * width + h.inside[b]];
        sum += value;
        if (value > most) most = value;
      }
      found[to++] = count ? sum / count(v.inside.length * h.inside.length, v.all * h.all) : most;
    }
    return found;
  } };
}

const total = (values) => { let sum = 0; for (const value of values) sum += value; return sum; };

function adaptive(node, [[channels, height, width]]) {
  const lengths = [height, width], sizes = node.size.map((size, axis) => size ?? lengths[axis]);
  return windows([channels, height, width], sizes, (at, axis) => {
    const from = Math.floor(at * lengths[axis] / sizes[axis]), to = Math.ceil((at + 1) * lengths[axis] / sizes[axis]);
    return Array.from({ length: to - from }, (_, place) => from + place);
  }, (inside) => inside);
}

function pointwise(change) {
  return (node, [shape]) => ({ shape, run: (x) => x.map((value) => change(value, node)) });
}

const same = (node, [shape]) => ({ shape, run: (x) => x });
function axisOf(dim, shape) {  // a dim counts the batch, a shape does not
  const axis = dim < 0 ? dim + shape.length : dim - 1;
  if (axis < 0) throw new Error("an operation over the batch");
  return axis;
}

function flatten({ start, end }, [shape]) {
  const from = axisOf(start, shape), to = axisOf(end, shape);
  return same(null, [[...shape.slice(0, from), product(shape.slice(from, to + 1)), ...shape.slice(to + 1)]]);
}

function withRest(sizes, count) {  // one of the sizes may be -1: what is left
  const rest = count / product(sizes.filter((size) => size !== -1));
  return sizes.map((size) => (size === -1 ? rest : size));
}

function unflatten({ dim, sizes }, [shape]) {
  const axis = axisOf(dim, shape);
  return same(null, [[...shape.slice(0, axis), ...withRest(sizes, shape[axis]), ...shape.slice(axis + 1)]]);
}

function reshape({ sizes }, [shape]) {
  const found = withRest(sizes.slice(1), product(shape));
  if (product(found) !== product(shape)) throw new Error(`${shape} cannot become ${sizes}`);
  return same(null, [found]);
}

function ofTwo(join) {  // torch's broadcasting
  return (node, [one, other = one]) => {
    const rank = Math.max(one.length, other.length), [a, b] = [one, other].map((shape) => [...Array(rank - shape.length).fill(1), ...shape]);
    const shape = a.map((length, axis) => (length === 1 ? b[axis] : length));
    const [left, right] = [a, b].map((own) => Uint32Array.from({ length: product(shape) }, (_, i) => {
      let at = 0, rest = i, step = 1;
      for (let axis = rank - 1; axis >= 0; axis--) {
        if (own[axis] > 1) at += rest % shape[axis] * step;
        step *= own[axis];
        rest = Math.floor(rest / shape[axis]);
      }
      return at;
    }));
    return { shape, run: (x, y = x) => {
      const found = new Float64Array(left.length);
      for (let i = 0; i < found.length; i++) found[i] = join(x[left[i]], y[right[i]]);
      return found;
    } };
  };
}

function cat({ dim }, shapes) {
  const axis = axisOf(dim, shapes[0]), outer = product(shapes[0].slice(0, axis)), parts = shapes.map((shape) => product(shape.slice(axis)));
  const shape = shapes[0].map((length, at) => (at === axis ? total(shapes.map((own) => own[axis])) : length));
  return { shape, run: (...inputs) => {
    const found = new Float64Array(product(shape));
    for (let row = 0, to = 0; row < outer; row++) inputs.forEach((x, part) => {
      found.set(x.subarray(row * parts[part], (row + 1) * parts[part]), to);
      to += parts[part];
    });
    return found;
  } };
}

function pad({ pad: widths, value }, [before]) {  // widths begin with the last axis, as in torch
  const shape = before.slice(), starts = before.map(() => 0);
  for (let i = 0; i < widths.length; i += 2) {
    const axis = shape.length - 1 - i / 2;
    if (axis < 0) throw new Error("padding of the batch");
    shape[axis] += widths[i] + widths[i + 1];
    starts[axis] = widths[i];
  }
  return { shape, run: (x) => Float64Array.from({ length: product(shape) }, (_, i) => {
    let at = 0, step = 1;
    for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
      const place = rest % shape[axis] - starts[axis];
      if (place < 0 || place >= before[axis]) return value ?? 0;
      at += place * step;
      step *= before[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    return x[at];
  }) };
}

const LAYERS = {
  linear: linearLayer, conv2d, batchnorm, flatten, unflatten, reshape, cat, pad, adaptiveavgpool: adaptive,
  maxpool: (node, [shape]) => pooling(node, shape),
  avgpool: (node, [shape]) => pooling(node, shape, (inside, all) => (node.count_include_pad ? all : inside)),
  relu: pointwise((value) => Math.max(value, 0)),
  leaky_relu: pointwise((value, { slope }) => (value < 0 ? value * slope : value)),
  hardtanh: pointwise((value, { low, high }) => Math.min(Math.max(value, low), high)),
  identity: same, dropout: same, output: same,
  add: ofTwo((a, b) => a + b), sub: ofTwo((a, b) => a - b), mul: ofTwo((a, b) => a * b),
};

// Build a graph, in order: nodes with their shapes. Raises an Error that says what it does not know.
function build(graph, tensors, shape) {
  const shapes = {};
  return graph.map((node) => {
    const layer = LAYERS[node.op];
    if (node.op !== "input" && !layer) throw new Error(`the page does not compute ${node.op}`);
    const made = layer ? layer(node, node.inputs.map((name) => shapes[name]), tensors) : { shape, run: (x) => x };
    if (made.shape.some((size) => !Number.isInteger(size) || size < 1)) throw new Error(`${node.name} would have the shape ${made.shape}`);
    shapes[node.name] = made.shape;
    const { run } = made;
    // With exact sums, what enters a product is snapped to a grid: see src/exact.
    if (node.step) made.run = (x) => run(x.map((value) => snap(Math.max(-32, Math.min(32, value)), node.step)));
    return { ...node, ...made };
  });
}

// Compute the model on an image; `see` is called with each node and what it gave.
function compute(model, image, see = null) {
  const values = {};
  let last = image;
  for (const node of model) {
    last = node.op === "input" ? image : node.run(...node.inputs.map((name) => values[name]));
    values[node.name] = last;
    see?.(node, last);
  }
  return last;
}

// Does an answer agree with the recorded one? The class and its probability, within 1e-4.
function agrees(probabilities, label, probability) {
  return Math.abs(probabilities[label] - probability) <= 1e-4 && probabilities.every((other) => other <= probabilities[label] + 1e-4);
}
