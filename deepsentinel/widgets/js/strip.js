// The best matches of a search side by side: small pictures that are buttons, numbered as the squares on the map are.
function render({ model, el }) {
  el.classList.add("ds-strip");
  const draw = () => {
    const focus = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    el.replaceChildren();
    const pieces = model.get("pieces");
    el.hidden = pieces.length === 0;
    if (!pieces.length) return;
    const head = document.createElement("div");
    head.textContent = model.get("title");
    const list = document.createElement("ol");
    list.setAttribute("aria-label", model.get("title"));
    pieces.forEach((piece, index) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.key = String(index);
      button.setAttribute("aria-pressed", String(index === model.get("picked")));
      button.setAttribute("aria-label", `Match ${index + 1}, likeness ${piece.text}: show on the map`);
      const image = document.createElement("img");
      image.src = piece.url;
      image.alt = "";
      const text = document.createElement("span");
      text.textContent = `${index + 1} · ${piece.text}`;
      button.append(image, text);
      button.addEventListener("click", () => {
        model.set("picked", index);
        model.save_changes();
      });
      item.append(button);
      list.append(item);
    });
    el.append(head, list);
    if (focus) el.querySelector(`[data-key="${focus}"]`)?.focus();
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
