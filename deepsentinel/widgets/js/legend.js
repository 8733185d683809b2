// The classes of a map: a box to tick, the official colour, the name and the share of each.
function render({ model, el }) {
  el.classList.add("ds-legend");
  const draw = () => {
    const focus = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    el.replaceChildren();
    const rows = model.get("rows");
    const scale = model.get("scale");
    if (!rows.length && !scale.colors) return;
    const hidden = new Set(model.get("hidden"));
    const set = (codes) => {
      model.set("hidden", codes);
      model.save_changes();
    };
    const head = document.createElement("div");
    head.className = "ds-legend-head";
    const title = document.createElement("span");
    title.textContent = model.get("title");
    head.append(title);
    const fixed = model.get("fixed") || !rows.length;
    for (const [text, codes] of fixed ? [] : [["All", []], ["None", rows.map((row) => row.code)]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.dataset.key = text;
      button.setAttribute("aria-label", text === "All" ? "Show all classes" : "Hide all classes");
      button.addEventListener("click", () => set(codes));
      head.append(button);
    }
    const list = document.createElement("ul");
    list.setAttribute("aria-label", "Classes");
    for (const row of rows) {
      const item = document.createElement("li");
      const label = document.createElement(fixed ? "div" : "label");
      label.className = "ds-legend-row";
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = !hidden.has(row.code);
      box.dataset.key = String(row.code);
      box.addEventListener("change", () => {
        const next = new Set(model.get("hidden"));
        box.checked ? next.delete(row.code) : next.add(row.code);
        set([...next].sort((a, b) => a - b));
      });
      const swatch = document.createElement("span");
      swatch.className = "ds-swatch";
      swatch.style.background = row.color;
      const name = document.createElement("span");
      name.className = "ds-legend-name";
      name.textContent = row.name;
      name.title = row.name;
      const share = document.createElement("span");
      share.className = "ds-legend-share";
      share.textContent = row.share;
      label.append(...(fixed ? [] : [box]), swatch, name, share);
      item.append(label);
      list.append(item);
    }
    el.append(head);
    if (rows.length) el.append(list);
    if (scale.colors) {
      const bar = document.createElement("div");
      const ends = document.createElement("div");
      bar.className = "ds-legend-bar";
      bar.style.background = `linear-gradient(to right, ${scale.colors.join(", ")})`;
      ends.className = "ds-legend-ends";
      for (const text of [scale.low, scale.high]) {
        ends.append(Object.assign(document.createElement("span"), { textContent: text }));
      }
      el.append(bar, ends);
    }
    if (focus) el.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
