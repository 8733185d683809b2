// What a run is doing: its loss, below it the score of what was held back, and one sample seen now and then.
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 8, TOP = 18, FOOT = 18;

function add(parent, name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((each) => each * power >= raw * 0.999) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function plot(svg, { width, height, points, steps, name, kind, low, high }) {
  const inner = { width: width - LEFT - RIGHT, height: height - TOP - FOOT };
  const x = (step) => LEFT + (step / Math.max(1, steps)) * inner.width;
  const y = (value) => TOP + inner.height * (1 - (value - low) / (high - low));
  const { found, digits } = ticks(low, high, 3);
  for (const value of found) {
    add(svg, "line", { class: "ds-grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) });
    add(svg, "text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(digits));
  }
  add(svg, "line", { class: "ds-axis", x1: LEFT, x2: width - RIGHT, y1: TOP + inner.height, y2: TOP + inner.height });
  add(svg, "text", { x: 0, y: 11 }, name);
  for (const [step, anchor] of [[0, "start"], [steps, "end"]]) {
    add(svg, "text", { x: x(step), y: height - 4, "text-anchor": anchor }, step ? `${step} steps` : "0");
  }
  const kept = points.map(([step, value]) => [x(step), y(Math.max(low, Math.min(high, value)))]);
  const line = kept.map(([a, b], n) => `${n ? "L" : "M"}${a.toFixed(1)},${b.toFixed(1)}`).join("");
  if (kept.length) {
    add(svg, "path", { class: kind, d: line });
    const [a, b] = kept[kept.length - 1];
    add(svg, "circle", { class: kind, cx: a, cy: b, r: 3 });
    const near = a > width - 70;
    add(svg, "text", { class: "ds-now", x: a + (near ? -6 : 6), y: Math.max(TOP + 8, b - 6),
      "text-anchor": near ? "end" : "start" }, points[points.length - 1][1].toFixed(3));
  }
}

function render({ model, el }) {
  el.classList.add("ds-curves");
  const loss = document.createElementNS(SVG, "svg");
  const score = document.createElementNS(SVG, "svg");
  const seen = document.createElement("div");
  seen.className = "ds-glimpses";
  for (const svg of [loss, score]) svg.setAttribute("role", "img");
  el.append(loss, score, seen);
  let width = 0;
  const size = (svg, height) => {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.replaceChildren();
  };
  const draw = () => {
    if (!width) return;
    const losses = model.get("losses"), scores = model.get("scores"), steps = model.get("steps");
    loss.style.display = losses.length ? "" : "none";
    score.style.display = scores.length ? "" : "none";
    if (losses.length) {
      const values = losses.map(([, value]) => value);
      const high = Math.max(...values), low = Math.min(0, ...values);
      size(loss, 132);
      plot(loss, { width, height: 132, points: losses, steps, name: "loss", kind: "ds-loss", low,
        high: high > low ? high * 1.05 : low + 1 });
      const [step, value] = losses[losses.length - 1];
      loss.setAttribute("aria-label", `Loss: ${value.toFixed(3)} at step ${step} of ${steps}, ` +
        `${values[0].toFixed(3)} at first`);
    }
    if (scores.length) {
      const values = scores.map(([, value]) => value);
      size(score, 112);
      plot(score, { width, height: 112, points: scores, steps, name: model.get("score_name"), kind: "ds-score",
        low: Math.min(0, ...values), high: Math.max(Math.max(...values) * 1.15, 0.05) });
      const [step, value] = scores[scores.length - 1];
      score.setAttribute("aria-label", `${model.get("score_name")}: ${value.toFixed(3)} at step ${step}`);
    }
  };
  const show = () => {
    seen.replaceChildren();
    for (const { words, url } of model.get("pictures")) {
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      const caption = document.createElement("figcaption");
      image.src = url;
      image.alt = words;
      caption.textContent = words;
      figure.append(image, caption);
      seen.append(figure);
    }
  };
  const watch = new ResizeObserver((entries) => {
    const next = Math.floor(entries[0].contentRect.width);
    if (next !== width) {
      width = next;
      draw();
    }
  });
  watch.observe(el);
  // One drawing a frame, however many values come.
  let waiting = 0;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  };
  for (const name of ["losses", "scores", "steps", "score_name"]) model.on(`change:${name}`, soon);
  model.on("change:pictures", show);
  show();
  return () => {
    watch.disconnect();
    cancelAnimationFrame(waiting);
    for (const name of ["losses", "scores", "steps", "score_name"]) model.off(`change:${name}`, soon);
    model.off("change:pictures", show);
  };
}
export default { render };
