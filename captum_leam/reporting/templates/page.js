"use strict";
// Sort tables by a click or by the keyboard on their heads; without this script they are plain tables.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numeric = head.classList.contains("n");
      const down = before === "none" ? numeric : before === "ascending"; // numbers: the largest first
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? Number(cell.dataset.v ?? NaN) : cell.textContent.trim();
      };
      const order = (a, b) => {
        const [x, y] = [a[0], b[0]];
        if (!numeric) return (down ? -1 : 1) * x.localeCompare(y, "en", { numeric: true });
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // unknown stays last
        return (down ? -1 : 1) * (x - y);
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      body.append(...rows.sort(order).map(([, row]) => row));
    });
  });
}
