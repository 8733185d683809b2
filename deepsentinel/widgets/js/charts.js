// The spectrum of one pixel, and its year: how green, and how bright to the radar. SVG, drawn to the width there is.
const SVG = "http://www.w3.org/2000/svg";
const WAYS = ["var(--ds-blue)", "var(--ds-vermilion)", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const MARKS = ["M-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0", "M0,-4.2L4,3H-4Z", "M-3,-3H3V3H-3Z",
  "M0,-4.4L4.4,0L0,4.4L-4.4,0Z", "M0,4.2L4,-3H-4Z", "M-4,-1.3H-1.3V-4H1.3V-1.3H4V1.3H1.3V4H-1.3V1.3H-4Z"];
const DAY = 86400000;
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

function add(parent, name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}
const path = (points) => points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((each) => each * power >= raw) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// One frame of a chart: axes with few words, and where a value lies.
function frame(svg, { left, top, width, height, xs, ys, yText, yTicks = 3 }) {
  const x = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * width;
  const y = (value) => top + height - ((value - ys[0]) / (ys[1] - ys[0])) * height;
  const { found, digits } = ticks(ys[0], ys[1], yTicks);
  for (const value of found) {
    add(svg, "line", { class: "ds-grid", x1: left, x2: left + width, y1: y(value), y2: y(value) });
    add(svg, "text", { class: "ds-tick", x: left - 5, y: y(value) + 3.5, "text-anchor": "end" },
      value.toFixed(digits).replace("-", "\u2212"));
  }
  add(svg, "line", { class: "ds-axis", x1: left, x2: left + width, y1: top + height, y2: top + height });
  add(svg, "text", { class: "ds-name", x: 2, y: top - 9 }, yText);
  return { x, y };
}

function drawSpectrum(svg, width, lines) {
  const box = { left: 38, top: 23, width: width - 48, height: 128 };
  const values = lines.flatMap((line) => line.points.map((point) => point[2]));
  const top = Math.max(0.1, ...values) * (lines.length > 1 ? 1.3 : 1.2);
  const { x, y } = frame(svg, { ...box, xs: [420, 2280], ys: [0, top], yText: "reflectance" });
  for (const nm of [500, 1000, 1500, 2000]) {
    add(svg, "text", { class: "ds-tick", x: x(nm), y: box.top + box.height + 14, "text-anchor": "middle" },
      nm === 2000 ? "2000 nm" : String(nm));
  }
  lines.forEach((line, n) => {
    // Which line is which, under the name of the axis.
    const key = add(svg, "g", { class: n ? "ds-spectrum ds-other" : "ds-spectrum" });
    add(key, "path", { d: `M${box.left + 12},${box.top + 4 + 15 * n}h18` });
    add(svg, "text", { class: "ds-tick", x: box.left + 35, y: box.top + 8 + 15 * n }, line.text);
    const group = add(svg, "g", { class: n ? "ds-spectrum ds-other" : "ds-spectrum" });
    add(group, "path", { d: path(line.points.map(([, nm, share]) => [x(nm), y(share)])), fill: "none" });
    for (const [band, nm, share] of line.points) {
      const mark = add(group, "circle", { cx: x(nm), cy: y(share), r: n ? 2.2 : 3.2 });
      add(mark, "title", {}, `${line.text}: ${band}, ${nm} nm, reflectance ${share.toFixed(3)}`);
    }
  });
  return box.top + box.height + 20;
}

function monthTicks(svg, span, x, y) {
  const months = (span[1] - span[0]) / (30.4 * DAY);
  const every = months > 8 ? 3 : months > 4 ? 2 : 1;
  const start = new Date(span[0]);
  for (let n = 0; n < 40; n++) {
    const at = Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + n, 1);
    if (at > span[1]) break;
    const month = new Date(at).getUTCMonth();
    if (at < span[0] || month % every) continue;
    const year = month === 0 ? ` ${new Date(at).getUTCFullYear()}` : "";
    const words = add(svg, "text", { class: "ds-tick", x: x(at), y, "text-anchor": "middle" }, MONTHS[month] + year);
    if (x(at) + words.getComputedTextLength() / 2 > x(span[1])) {
      words.setAttribute("x", x(span[1]));
      words.setAttribute("text-anchor", "end");
    }
  }
}

function drawYear(svg, width, year, picked, pick) {
  const when = (each) => Date.parse(`${each.time}Z`);
  const times = [...year.s2, ...year.s1].map(when);
  if (!times.length) return 0;
  const pad = Math.max(4 * DAY, (Math.max(...times) - Math.min(...times)) * 0.02);
  const span = [Math.min(...times) - pad, Math.max(...times) + pad];
  const common = { left: 38, width: width - 48, xs: span };
  let below = 0;
  const green = year.s2.filter((each) => each.ndvi !== null);
  if (green.length) {
    const low = Math.min(0, ...green.map((each) => each.ndvi));
    const box = { ...common, top: 24, height: 84, ys: [low, 1] };
    const { x, y } = frame(svg, { ...box, yText: "NDVI, hollow under cloud" });
    const clear = green.filter((each) => each.clear !== false);
    add(svg, "path", { class: "ds-green", d: path(clear.map((each) => [x(when(each)), y(each.ndvi)])), fill: "none" });
    for (const each of green) {
      const kind = each.clear === false ? "ds-mark ds-cloudy" : "ds-mark ds-clear";
      const mark = add(svg, "circle", {
        class: kind + (each.time === picked ? " ds-picked" : ""), cx: x(when(each)), cy: y(each.ndvi),
        r: each.time === picked ? 6 : 4,
      });
      const words = each.clear === false ? ", cloud or shadow" : "";
      add(mark, "title", {}, `${each.time.replace("T", " ")} UTC: NDVI ${each.ndvi.toFixed(2)}${words}`);
      mark.addEventListener("click", () => pick(each.time));
    }
    below = box.top + box.height;
    if (!year.s1.length) monthTicks(svg, span, x, below + 14);
  }
  if (year.s1.length) {
    const bands = ["VV", "VH", "HH", "HV"].filter((name) => year.s1.some((each) => name in each));
    const values = year.s1.flatMap((each) => bands.filter((name) => name in each).map((name) => each[name]));
    const ways = [...new Set(year.s1.map((each) => each.orbit))].sort();
    const top = below ? below + 28 : 24;
    const box = { ...common, top, height: 112, ys: [Math.min(...values) - 1, Math.max(...values) + 1] };
    const { x, y } = frame(svg, { ...box, yText: `backscatter, dB: ${bands[0]} full, ${bands[1] ?? ""} hollow` });
    ways.forEach((way, number) => {
      const colour = WAYS[number % WAYS.length];
      bands.forEach((name) => {
        const mine = year.s1.filter((each) => each.orbit === way && name in each);
        const cross = name === "VH" || name === "HV";
        add(svg, "path", {
          class: "ds-way", d: path(mine.map((each) => [x(when(each)), y(each[name])])), fill: "none",
          style: `stroke: ${colour}`,
          "stroke-dasharray": cross ? "2 3" : "none",
        });
        for (const each of mine) {
          const mark = add(svg, "path", {
            class: cross ? "ds-mark ds-hollow" : "ds-mark", d: MARKS[number % MARKS.length],
            style: `stroke: ${colour}${cross ? "" : `; fill: ${colour}`}`,
            transform: `translate(${x(when(each)).toFixed(1)},${y(each[name]).toFixed(1)})`,
          });
          add(mark, "title", {}, `${each.time.replace("T", " ")} UTC: ${name} ${each[name].toFixed(1)} dB, ${way}`);
        }
      });
    });
    below = box.top + box.height;
    monthTicks(svg, span, x, below + 14);
    let at = 38;
    ways.forEach((way, number) => {
      const colour = WAYS[number % WAYS.length];
      const transform = `translate(${at},${below + 29})`;
      add(svg, "path", { d: MARKS[number % MARKS.length], style: `fill: ${colour}`, transform });
      const words = add(svg, "text", { class: "ds-tick", x: at + 8, y: below + 32.5 }, way || "Sentinel-1");
      at += 22 + words.getComputedTextLength();
    });
    below += 22;
  }
  return below + 18;
}

function render({ model, el }) {
  el.classList.add("ds-charts");
  const spectrum = document.createElementNS(SVG, "svg");
  const year = document.createElementNS(SVG, "svg");
  const said = document.createElement("div");
  said.className = "ds-said";
  said.setAttribute("aria-live", "polite");
  spectrum.setAttribute("role", "img");
  year.setAttribute("role", "img");
  const holder = document.createElement("div");
  holder.className = "ds-year";
  holder.append(year);
  el.append(said, spectrum, holder);
  let width = 0;
  const dated = () => (model.get("year").s2 ?? []).filter((each) => each.spectrum.length);
  const pick = (time) => {
    model.set("picked", time);
    model.save_changes();
  };
  const draw = () => {
    if (!width) return;
    const lines = model.get("spectra").filter((line) => line.points.length);
    const held = model.get("year");
    const dates = (held.s2?.length ?? 0) + (held.s1?.length ?? 0);
    said.textContent = model.get("text");
    spectrum.replaceChildren();
    year.replaceChildren();
    spectrum.hidden = !lines.length;
    spectrum.style.display = lines.length ? "" : "none";
    holder.hidden = !dates;
    const size = (svg, height) => {
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
    };
    if (lines.length) size(spectrum, drawSpectrum(spectrum, width, lines));
    if (dates) size(year, drawYear(year, width, { s2: held.s2 ?? [], s1: held.s1 ?? [] }, model.get("picked"), pick));
    spectrum.setAttribute("aria-label", lines.map((line) => `${line.text}: ` +
      line.points.map(([band, , share]) => `${band} ${share.toFixed(3)}`).join(", ")).join(". ") || "No spectrum");
    year.setAttribute("aria-label",
      `Through the year: ${held.s2?.length ?? 0} dates of Sentinel-2, ${held.s1?.length ?? 0} of Sentinel-1`);
    if (dated().length) {
      holder.tabIndex = 0;
      holder.setAttribute("role", "group");
      holder.setAttribute("aria-label", "The year: left and right choose the date whose spectrum is shown");
    } else {
      holder.removeAttribute("tabindex");
      holder.removeAttribute("role");
      holder.removeAttribute("aria-label");
    }
  };
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const all = dated();
    if (!step || !all.length) return;
    // JupyterLab takes arrow keys for its cells.
    event.preventDefault();
    event.stopPropagation();
    const now = all.findIndex((each) => each.time === model.get("picked"));
    pick(all[Math.max(0, Math.min(all.length - 1, now < 0 ? 0 : now + step))].time);
  });
  const watch = new ResizeObserver((entries) => {
    const next = Math.floor(entries[0].contentRect.width);
    if (next !== width) {
      width = next;
      draw();
    }
  });
  watch.observe(el);
  model.on("change", draw);
  return () => {
    watch.disconnect();
    model.off("change", draw);
  };
}
export default { render };
