// A file of the reader's own, as text; read in the page and handed over whole.
function render({ model, el }) {
  el.classList.add("ds-upload");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const name = document.createElement("span");
  input.type = "file";
  label.append(input, name);
  el.append(label);
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (!file) return;
    if (file.size > model.get("most")) {
      model.set("file", { name: file.name, size: file.size, text: null });
    } else {
      model.set("file", { name: file.name, size: file.size, text: await file.text() });
    }
    model.save_changes();
    // So that the same file can be chosen again once it was mended.
    input.value = "";
  });
  const draw = () => {
    name.textContent = model.get("description");
    input.accept = model.get("accept");
    label.title = model.get("tooltip");
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
