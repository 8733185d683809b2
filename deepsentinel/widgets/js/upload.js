// A file of the reader's own, handed over in pieces: servers cut the connection at a message of ten megabytes.
const PIECE = 1 << 20;

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
    const begin = { kind: "begin", name: file.name, size: file.size };
    model.send(begin);
    if (file.size <= model.get("most")) {
      for (let at = 0; at < file.size; at += PIECE) {
        const piece = await file.slice(at, at + PIECE).arrayBuffer();
        model.send({ ...begin, kind: "piece" }, undefined, [piece]);
      }
      model.send({ ...begin, kind: "end" });
    }
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
