// A native slider with a label of its own: it has a name, keys, and a focus that can be seen.
function render({ model, el }) {
  el.classList.add("ds-slider");
  const label = document.createElement("label");
  const name = document.createElement("span");
  const input = document.createElement("input");
  const output = document.createElement("output");
  input.type = "range";
  label.append(name, input, output);
  el.append(label);
  const said = (value) => {
    const digits = Math.max(0, Math.ceil(-Math.log10(model.get("step")) - 1e-9));
    return `${Number(value).toFixed(digits)} ${model.get("unit")}`.trim();
  };
  const show = () => {
    output.textContent = said(input.value);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const draw = () => {
    name.textContent = model.get("description");
    for (const key of ["min", "max", "step"]) input[key] = model.get(key);
    input.value = model.get("value");
    input.disabled = model.get("disabled");
    show();
  };
  input.addEventListener("input", show);
  input.addEventListener("change", () => {
    model.set("value", Number(input.value));
    model.save_changes();
  });
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
