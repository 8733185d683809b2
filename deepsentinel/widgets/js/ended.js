// Jupyter keeps the page of a widget whose kernel has gone; somebody has to say so.
function render({ model, el }) {
  el.classList.add("ds-line", "ds-ended");
  el.dataset.kind = "error";
  el.setAttribute("role", "alert");
  el.hidden = true;
  const end = () => {
    el.textContent = model.get("text");
    el.hidden = false;
    el.closest(".ds-map")?.classList.add("ds-dead");
  };
  model.on("comm_live_update", end);
  model.on("comm:close", end);
}
export default { render };
