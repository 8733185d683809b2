// A handle over a Leaflet map that cuts two of its panes. It lives in the map's own element, and needs nothing of
// Leaflet but the names it gives to panes.
const BLOCKED = ["pointerdown", "mousedown", "touchstart", "click", "dblclick", "contextmenu"];

function attach(model, map) {
  const bar = document.createElement("div");
  bar.className = "ds-swipe";
  const handle = document.createElement("div");
  handle.className = "ds-swipe-handle";
  handle.tabIndex = 0;
  handle.setAttribute("role", "slider");
  handle.setAttribute("aria-valuemin", "0");
  handle.setAttribute("aria-valuemax", "100");
  handle.setAttribute("aria-orientation", "horizontal");
  bar.append(handle);
  map.append(bar);
  const pane = (name) => map.querySelector(`.leaflet-${CSS.escape(name)}-pane`);
  const whole = map.querySelector(".leaflet-map-pane");
  let cut = [];

  const restore = () => {
    cut.forEach((each) => (each.style.clip = ""));
    cut = [];
  };
  const draw = () => {
    bar.hidden = !model.get("left");
    if (bar.hidden) return restore();
    const { width, height } = map.getBoundingClientRect();
    const at = model.get("share") * width;
    const percent = Math.round(100 * model.get("share"));
    bar.style.left = `${at}px`;
    handle.setAttribute("aria-label", model.get("text"));
    handle.setAttribute("aria-valuenow", String(percent));
    handle.setAttribute("aria-valuetext", `${percent} % from the left`);
    // Panes lie in one that moves with the map, so the cut moves against it.
    const moved = new DOMMatrixReadOnly(getComputedStyle(whole).transform);
    const [x, y] = [-moved.m41, -moved.m42];
    restore();
    for (const [name, from, to] of [[model.get("left"), 0, at], [model.get("right"), at, width]]) {
      const each = pane(name);
      if (!each) continue;
      each.style.clip = `rect(${y}px, ${x + to}px, ${y + height}px, ${x + from}px)`;
      cut.push(each);
    }
  };
  const move = (share, done) => {
    model.set("share", Math.min(0.98, Math.max(0.02, share)));
    draw();
    if (done) model.save_changes();
  };

  // What is meant for the handle is not a drag or a click on the map.
  BLOCKED.forEach((kind) => bar.addEventListener(kind, (event) => event.stopPropagation()));
  let held = false;
  handle.addEventListener("pointerdown", (event) => {
    held = true;
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!held) return;
    event.stopPropagation();
    const box = map.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, false);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    handle.addEventListener(kind, () => {
      if (held) model.save_changes();
      held = false;
    });
  }
  handle.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 }[event.key];
    if (!to) return;
    // Leaflet pans with these keys, and JupyterLab changes cells.
    event.preventDefault();
    event.stopPropagation();
    move(model.get("share") + to, true);
  });
  const panned = new MutationObserver(draw);
  panned.observe(whole, { attributes: true, attributeFilter: ["style"] });
  const sized = new ResizeObserver(draw);
  sized.observe(map);
  model.on("change", draw);
  draw();
  return () => {
    panned.disconnect();
    sized.disconnect();
    model.off("change", draw);
    restore();
    bar.remove();
  };
}

function render({ model, el }) {
  el.classList.add("ds-swipe-anchor");
  let detach = null;
  let waiting = 0;
  // The control is put into the map after it is rendered.
  const look = () => {
    const map = el.closest(".leaflet-container");
    if (map) detach = attach(model, map);
    else waiting = requestAnimationFrame(look);
  };
  look();
  return () => {
    cancelAnimationFrame(waiting);
    detach?.();
  };
}
export default { render };
