// Classes that somebody makes up: one of them is at hand, each has a colour, a name and a count; a new one below.
function render({ model, el }) {
  el.classList.add("ds-classes");
  const group = `ds-class-${Math.random().toString(36).slice(2)}`;
  const list = document.createElement("ul");
  list.setAttribute("aria-label", "Classes");
  const form = document.createElement("form");
  const field = document.createElement("input");
  const add = document.createElement("button");
  field.type = "text";
  field.placeholder = "crop / wheat";
  field.setAttribute("aria-label", "Name of a new class; groups before a slash");
  field.maxLength = 80;
  add.type = "submit";
  add.textContent = "Add class";
  form.append(field, add);
  el.append(list, form);
  // Keys within belong to whoever types, not to the notebook around.
  el.addEventListener("keydown", (event) => event.stopPropagation());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = field.value.trim();
    if (!name) return field.focus();
    model.send({ kind: "add", name });
    field.value = "";
  });
  const draw = () => {
    const focus = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    list.replaceChildren();
    for (const each of model.get("classes")) {
      const row = document.createElement("li");
      const radio = document.createElement("input");
      radio.type = "radio";
      radio.name = group;
      radio.checked = each.name === model.get("active");
      radio.dataset.key = `radio ${each.name}`;
      radio.setAttribute("aria-label", `Label with ${each.name}`);
      radio.addEventListener("change", () => model.send({ kind: "take", name: each.name }));
      const color = document.createElement("input");
      color.type = "color";
      color.value = each.color;
      color.dataset.key = `color ${each.name}`;
      color.setAttribute("aria-label", `Colour of ${each.name}`);
      color.addEventListener("change", () => model.send({ kind: "color", name: each.name, color: color.value }));
      const name = document.createElement("input");
      name.type = "text";
      name.value = each.name;
      name.maxLength = 80;
      name.dataset.key = `name ${each.name}`;
      name.setAttribute("aria-label", `Name of ${each.name}`);
      name.addEventListener("change", () => {
        model.send({ kind: "rename", name: each.name, to: name.value.trim() });
        name.value = each.name;
      });
      const count = document.createElement("span");
      count.className = "ds-class-count";
      count.textContent = each.text;
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "×";
      remove.dataset.key = `remove ${each.name}`;
      remove.setAttribute("aria-label", `Remove ${each.name} and its labels`);
      remove.addEventListener("click", () => model.send({ kind: "remove", name: each.name }));
      row.append(radio, color, name, count, remove);
      list.append(row);
    }
    if (focus) list.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}
export default { render };
