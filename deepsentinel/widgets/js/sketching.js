// Whether a drawing tool is at work is known to the page alone. It is looked up when the mouse goes down, so that the
// kernel hears of it before it hears of the click.
function render({ model, el }) {
  el.hidden = true;
  const look = (event) => {
    const root = el.closest(".ds-map");
    if (!root || !root.contains(event.target)) return;
    const active = root.querySelector(".leaflet-draw-toolbar-button-enabled") !== null;
    if (model.get("active") === active) return;
    model.set("active", active);
    model.save_changes();
  };
  document.addEventListener("pointerdown", look, true);
  return () => document.removeEventListener("pointerdown", look, true);
}
export default { render };
