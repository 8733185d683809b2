// A file of the reader's own, handed over in pieces: servers cut the connection at a message of ten megabytes.
const PIECE = 1 << 20;

async function hand(model, file) {
  // Two views of one control may send at once; what pieces belong together is told by this.
  const id = `${Date.now()} ${Math.random()}`;
  const told = { id, name: file.name, size: file.size };
  model.send({ ...told, kind: "begin" });
  if (file.size > model.get("most")) return;
  try {
    for (let at = 0; at < file.size; at += PIECE) {
      const piece = await file.slice(at, at + PIECE).arrayBuffer();
      model.send({ ...told, kind: "piece" }, undefined, [piece]);
    }
  } catch (error) {
    // The file went while it was read. Too few bytes came then, and that is told where they are counted.
    console.warn(error);
  }
  model.send({ ...told, kind: "end" });
}

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
    if (!file || input.disabled) return;
    const root = input.getRootNode();
    const focused = root.activeElement === input;
    input.disabled = true;
    try {
      await hand(model, file);
    } finally {
      input.disabled = false;
      // So that the same file can be chosen again once it was mended.
      input.value = "";
      // A control that cannot be used loses the focus, which goes back unless it was taken elsewhere.
      const now = root.activeElement;
      if (focused && (!now || now === document.body)) input.focus();
    }
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
