// The equivalent cell: folded away, made when it is opened, copied at a click.
function render({ model, el }) {
  el.classList.add("ds-cell");
  const fold = document.createElement("details");
  const title = document.createElement("summary");
  title.textContent = "As Python";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  const code = document.createElement("pre");
  code.tabIndex = 0;
  code.setAttribute("aria-label", "The equivalent Python");
  fold.append(title, copy, code);
  el.append(fold);
  fold.addEventListener("toggle", () => {
    model.set("opened", fold.open);
    model.save_changes();
  });
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  copy.addEventListener("click", async () => {
    let told = "Copied";
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Pages that are not served securely may not write the clipboard.
      select();
      told = document.execCommand("copy") ? told : "Selected: press Ctrl+C";
    }
    copy.textContent = told;
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  const draw = () => {
    code.textContent = model.get("text");
    fold.open = model.get("opened");
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
