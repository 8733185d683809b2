// One line of text; what went wrong is read out at once, news when there is a pause.
function render({ model, el }) {
  el.classList.add("ds-line");
  const text = document.createElement("span");
  el.append(text);
  const draw = () => {
    const kind = model.get("kind");
    el.dataset.kind = kind;
    text.setAttribute("role", kind === "error" ? "alert" : "status");
    text.textContent = model.get("text");
    el.hidden = !model.get("text");
  };
  model.on("change:text", draw);
  model.on("change:kind", draw);
  draw();
}
export default { render };
