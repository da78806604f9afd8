// Shows, sorts and filters what the page already says without it. It asks for nothing and keeps nothing.
(() => {
  "use strict";

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // --- faces: one moment at a time, and how far a face is from its photo ---------------------------------------------

  const setUpFaces = (section) => {
    const tables = [...section.querySelectorAll(".faces table")];
    const bodiesOf = (table) => [...table.querySelectorAll("tbody[data-after]")];
    const after = (body) => Number(body.dataset.after);
    const moments = [...new Set(tables.flatMap(bodiesOf).map(after))].sort((a, b) => a - b);
    const last = moments.length - 1;
    const slider = make("input", { type: "range", min: 0, max: last, value: last, id: "faces-after" });
    const said = make("output", { for: "faces-after" });
    const differences = make("input", { type: "checkbox", id: "faces-difference" });

    const show = () => {
      const t = moments[Number(slider.value)];
      said.textContent = `t = ${t}`;
      slider.setAttribute("aria-valuetext", `after training on timestamp ${t}`);
      for (const table of tables) {
        const bodies = bodiesOf(table);
        const chosen = bodies.filter((body) => after(body) <= t).pop() ?? bodies[0];
        for (const body of bodies) body.classList.toggle("shown", body === chosen);
      }
    };

    const compare = () => {
      for (const old of section.querySelectorAll("img.over")) old.remove();
      section.classList.toggle("differing", differences.checked);
      if (!differences.checked) return;
      for (const table of tables) {
        const photos = [...table.querySelectorAll("tbody.photos img")];
        for (const row of table.querySelectorAll("tbody[data-after] tr")) {
          [...row.querySelectorAll(".face")].forEach((face, k) =>
            face.append(make("img", { class: "over", alt: "", src: photos[k].src })));
        }
      }
    };

    slider.addEventListener("input", show);
    differences.addEventListener("change", compare);
    section.classList.add("chosen");
    section.querySelector("h2").after(make("div", { class: "controls" },
      make("label", { for: "faces-after" }, "After training on timestamp"), slider, said,
      make("label", {}, differences, " difference to the photo, three times as bright")));
    show();
  };

  // --- tables: sorted by a column, and only the rows that hold some words -------------------------------------------

  const NUMBER = /^[^\p{L}\d]*?([-+\u2212]?)(\d+(?:\.\d+)?(?:e[-+]?\d+)?)/u;

  const firstText = (cell) => (cell?.firstChild?.nodeType === Node.TEXT_NODE ? cell.firstChild.data : cell?.textContent ?? "").trim();

  const numberIn = (text) => {
    const found = NUMBER.exec(text);
    return found ? (found[1] === "-" || found[1] === "\u2212" ? -1 : 1) * Number(found[2]) : NaN;
  };

  const isHeading = (row) => row.querySelector("th.block") !== null;

  // rows of a body in groups, each with the heading row above it, if it has one
  const groupsOf = (body) => {
    const groups = [];
    for (const row of body.rows) {
      if (isHeading(row) || !groups.length) groups.push({ heading: isHeading(row) ? row : null, rows: [] });
      if (!isHeading(row)) groups[groups.length - 1].rows.push(row);
    }
    return groups;
  };

  const sorted = (rows, column, direction) => {
    const keyed = rows.map((row) => ({ row, text: firstText(row.cells[column]), number: numberIn(firstText(row.cells[column])) }));
    const numbers = column > 0 && keyed.some(({ number }) => !Number.isNaN(number));
    keyed.sort((a, b) => {
      if (!numbers) return direction * a.text.localeCompare(b.text, "en", { numeric: true });
      if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
      return direction * (a.number - b.number);
    });
    return keyed.map(({ row }) => row);
  };

  const setUpSorting = (table, groups) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next !== "none") head.setAttribute("aria-sort", next);
        for (const { heading, rows } of groups) {
          const order = next === "none" ? rows : sorted(rows, column, next === "ascending" ? 1 : -1);
          table.tBodies[0].append(...(heading ? [heading] : []), ...order);
        }
      });
    });
  };

  const setUpFilter = (box, table, groups) => {
    const field = make("input", { type: "search", placeholder: "for instance er_rand" });
    const said = make("span", { role: "status" });
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { heading, rows } of groups) {
        let here = 0;
        for (const row of rows) {
          const text = `${heading?.textContent ?? ""} ${row.textContent}`.toLowerCase().replaceAll("\u00a0", " ");
          row.hidden = !words.every((word) => text.includes(word));
          here += !row.hidden;
        }
        if (heading) heading.hidden = here === 0;
        shown += here;
      }
      said.textContent = words.length ? `${shown} ${shown === 1 ? "row" : "rows"}` : "";
    });
    box.before(make("div", { class: "controls" }, make("label", {}, "Only rows with ", field), said));
  };

  const section = document.getElementById("faces");
  if (section?.querySelector("tbody[data-after]")) setUpFaces(section);
  for (const box of document.querySelectorAll(".scroll:not(.faces)")) {
    const table = box.querySelector("table");
    const groups = groupsOf(table.tBodies[0]);
    if (groups.some(({ rows }) => rows.length > 1)) setUpSorting(table, groups);
    if (groups.reduce((count, { rows }) => count + rows.length, 0) > 9) setUpFilter(box, table, groups);
  }
})();
