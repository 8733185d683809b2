// Black and white of each channel, folded away: two native sliders a row, each with a name of its own.
function render({ model, el }) {
  el.classList.add("ds-stretch");
  const fold = document.createElement("details");
  const summary = document.createElement("summary");
  const body = document.createElement("div");
  fold.append(summary, body);
  el.append(fold);
  const draw = () => {
    const focus = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    body.replaceChildren();
    const limits = model.get("limits");
    fold.hidden = !limits.length;
    summary.textContent = model.get("text");
    model.get("channels").forEach((channel, row) => {
      const line = document.createElement("div");
      line.className = "ds-stretch-row";
      const name = document.createElement("span");
      name.className = "ds-stretch-name";
      name.textContent = channel.name;
      const output = document.createElement("output");
      const inputs = [0, 1].map((end) => {
        const input = document.createElement("input");
        input.type = "range";
        input.dataset.key = `${row}-${end}`;
        for (const key of ["min", "max", "step"]) input[key] = channel[key];
        input.value = limits[row][end];
        input.setAttribute("aria-label", `${channel.name}: ${end ? "white" : "black"}`);
        return input;
      });
      const said = (value) => `${Number(value).toFixed(channel.digits)}`;
      const show = () => {
        output.textContent = `${said(inputs[0].value)} to ${said(inputs[1].value)} ${channel.unit}`.trim();
        inputs.forEach((input) => input.setAttribute("aria-valuetext", `${said(input.value)} ${channel.unit}`));
      };
      inputs.forEach((input, end) => {
        input.addEventListener("input", () => {
          // Black stays below white: the other end moves along.
          const gap = Number(channel.step);
          if (Number(inputs[1].value) - Number(inputs[0].value) < gap) {
            const other = Number(input.value) + (end ? -gap : gap);
            inputs[1 - end].value = other;
            if (Number(inputs[1].value) - Number(inputs[0].value) < gap) {
              input.value = Number(inputs[1 - end].value) + (end ? gap : -gap);
            }
          }
          show();
        });
        input.addEventListener("change", () => {
          const next = model.get("limits").map((pair) => [...pair]);
          next[row] = inputs.map((each) => Number(each.value));
          model.set("limits", next);
          model.save_changes();
        });
      });
      show();
      line.append(name, ...inputs, output);
      body.append(line);
    });
    if (focus) el.querySelector(`[data-key="${focus}"]`)?.focus();
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
