// One mark a scene. Sentinel-2: a column, filled from the top with cloud. Sentinel-1: a triangle, up for ascending.
const NS = "http://www.w3.org/2000/svg";
const LEFT = 30, RIGHT = 8, TOP = 6, COLUMN = 36, RADAR = 66, AXIS = 84, HEIGHT = 102, DAY = 864e5;

function make(tag, attributes, parent) {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.append(node);
  return node;
}

function ticks(first, last, width) {
  // The first of each month, or every 2nd, 3rd or 6th, or the years; days where there is less than a month.
  const found = [];
  const span = (last - first) / DAY;
  if (span < 45) {
    const step = [1, 2, 5, 10].find((days) => span / days * 48 < width) ?? 15;
    for (let at = Math.ceil(first / DAY) * DAY; at <= last; at += step * DAY)
      found.push([at, new Date(at).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" })]);
    return found;
  }
  const step = [1, 2, 3, 6, 12].find((months) => (span / 30.4 / months) * 36 < width) ?? 24;
  const date = new Date(first);
  for (let month = 0; ; month++) {
    const at = Date.UTC(date.getUTCFullYear(), month);
    if (at > last) return found;
    if (at < first || month % step) continue;
    const here = new Date(at);
    const name = here.toLocaleDateString("en-US", { month: "short", timeZone: "UTC" });
    found.push([at, here.getUTCMonth() === 0 || step === 12 ? String(here.getUTCFullYear()) : name]);
  }
}

function render({ model, el }) {
  el.classList.add("ds-timeline");
  const svg = make("svg", { height: HEIGHT, width: "100%", role: "listbox", tabindex: 0 });
  svg.setAttribute("aria-label", "Scenes by date. Arrow keys choose.");
  const caption = document.createElement("div");
  caption.className = "ds-timeline-caption";
  caption.setAttribute("role", "status");
  el.append(svg, caption);
  const own = Math.random().toString(36).slice(2);
  let width = 0;
  let marks = new Map();

  const pick = (id) => {
    model.set("picked", id);
    model.save_changes();
    state();
  };

  const state = () => {
    const chosen = model.get("chosen"), paired = new Set(model.get("paired")), picked = model.get("picked");
    for (const [id, { node }] of marks) {
      node.classList.toggle("ds-alone", !paired.has(id));
      node.classList.toggle("ds-chosen", chosen.includes(id) || id === picked);
      node.setAttribute("aria-selected", id === picked);
    }
    svg.querySelector(".ds-join")?.remove();
    const ends = chosen.map((id) => marks.get(id)).filter(Boolean);
    if (ends.length === 2) {
      const [low, high] = ends[0].scene.sensor === "S1" ? ends : ends.reverse();
      make("line", { class: "ds-join", x1: high.x, y1: TOP + COLUMN + 2, x2: low.x, y2: RADAR - 7 }, svg);
    }
    if (picked && marks.has(picked)) svg.setAttribute("aria-activedescendant", `${own}-${picked}`);
    else svg.removeAttribute("aria-activedescendant");
    const scene = marks.get(picked)?.scene;
    const count = model.get("scenes").length;
    caption.textContent = scene
      ? scene.text + (paired.has(picked) ? "" : ": no partner")
      : count ? "Columns: cloud in grey. Triangles: radar, up is ascending." : "";
  };

  const draw = () => {
    const scenes = model.get("scenes");
    svg.replaceChildren();
    marks = new Map();
    el.hidden = scenes.length === 0;
    if (!scenes.length || width < 80) return;
    const times = scenes.map((scene) => scene.time);
    let first = Math.min(...times), last = Math.max(...times);
    const margin = Math.max(DAY, (last - first) * 0.02);
    first -= margin;
    last += margin;
    const at = (time) => LEFT + ((time - first) / (last - first)) * (width - LEFT - RIGHT);
    for (const [text, y] of [["S2", TOP + COLUMN / 2 + 4], ["S1", RADAR + 4]])
      make("text", { x: 4, y, class: "ds-row-name" }, svg).textContent = text;
    make("line", { class: "ds-axis", x1: LEFT, x2: width - RIGHT, y1: AXIS, y2: AXIS }, svg);
    for (const [time, text] of ticks(first, last, width - LEFT - RIGHT)) {
      const x = at(time);
      make("line", { class: "ds-axis", x1: x, x2: x, y1: TOP, y2: AXIS + 3 }, svg);
      make("text", { x, y: AXIS + 14, class: "ds-date" }, svg).textContent = text;
    }
    // Scenes of one pass share a place; on top is the one that has a partner.
    const paired = new Set(model.get("paired"));
    for (const scene of [...scenes].sort((a, b) => paired.has(a.id) - paired.has(b.id) || a.time - b.time)) {
      const x = at(scene.time);
      const node = make("g", { role: "option", id: `${own}-${scene.id}`, class: "ds-mark", "aria-label": scene.text }, svg);
      node.dataset.id = scene.id;
      make("title", {}, node).textContent = scene.text;
      // Wider than it looks, so that it can be hit.
      if (scene.sensor === "S2") {
        make("rect", { class: "ds-hit", x: x - 4, y: TOP - 4, width: 8, height: COLUMN + 8 }, node);
        make("rect", { class: "ds-clear", x: x - 2.5, y: TOP, width: 5, height: COLUMN }, node);
        const share = scene.cloud === null ? 1 : scene.cloud / 100;
        const kind = scene.cloud === null ? "ds-cloud ds-unknown" : "ds-cloud";
        make("rect", { class: kind, x: x - 2.5, y: TOP, width: 5, height: COLUMN * share }, node);
        make("rect", { class: "ds-frame", x: x - 4, y: TOP - 2, width: 8, height: COLUMN + 4 }, node);
      } else {
        const up = scene.orbit !== "descending";
        const points = up ? [[-5, 5], [5, 5], [0, -5]] : [[-5, -5], [5, -5], [0, 5]];
        make("rect", { class: "ds-hit", x: x - 5, y: RADAR - 9, width: 10, height: 18 }, node);
        const shape = { points: points.map(([dx, dy]) => `${x + dx},${RADAR + dy}`).join(" ") };
        make("polygon", { ...shape, class: up ? "ds-up" : "ds-down" }, node);
      }
      node.addEventListener("click", () => pick(scene.id));
      marks.set(scene.id, { node, scene, x });
    }
    state();
  };

  svg.addEventListener("keydown", (event) => {
    const all = [...marks.values()].map((mark) => mark.scene).sort((a, b) => a.time - b.time);
    if (!all.length) return;
    const now = marks.get(model.get("picked"))?.scene ?? marks.get(model.get("chosen")[1])?.scene;
    const row = now ? all.filter((scene) => scene.sensor === now.sensor) : all;
    const index = now ? row.indexOf(now) : -1;
    let next = null;
    if (event.key === "ArrowRight") next = row[Math.min(index + 1, row.length - 1)];
    else if (event.key === "ArrowLeft") next = row[Math.max(index - 1, 0)];
    else if (event.key === "Home") next = row[0];
    else if (event.key === "End") next = row.at(-1);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const other = all.filter((scene) => scene.sensor === (event.key === "ArrowUp" ? "S2" : "S1"));
      const time = (now ?? all[0]).time;
      next = other.sort((a, b) => Math.abs(a.time - time) - Math.abs(b.time - time))[0];
    } else return;
    event.preventDefault();
    event.stopPropagation();
    if (next) pick(next.id);
  });

  const seen = new ResizeObserver(() => {
    if (Math.abs(svg.clientWidth - width) < 1 && marks.size) return;
    width = svg.clientWidth;
    draw();
  });
  // The strip is hidden while it is empty; what holds it always has its width.
  seen.observe(el.parentElement ?? el);
  seen.observe(svg);
  model.on("change:scenes", () => {
    el.hidden = false;
    width = svg.clientWidth;
    draw();
  });
  model.on("change:paired", draw);
  for (const name of ["chosen", "picked"]) model.on(`change:${name}`, state);
  width = svg.clientWidth;
  draw();
  return () => seen.disconnect();
}
export default { render };
