// Whether a drawing tool is at work is known to the page alone. It is looked up when the mouse goes down, so that the
// kernel hears of it before it hears of the click. As a message: a change of state may have to wait for another one.
function render({ model, el }) {
  el.hidden = true;
  const look = (event) => {
    const root = el.closest(".ds-map");
    if (!root || !root.contains(event.target)) return;
    model.send({ active: root.querySelector(".leaflet-draw-toolbar-button-enabled") !== null });
  };
  document.addEventListener("pointerdown", look, true);
  return () => document.removeEventListener("pointerdown", look, true);
}
export default { render };
