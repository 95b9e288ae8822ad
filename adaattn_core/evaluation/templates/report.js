// Sort a table by the column whose button is clicked; rows without a value stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    headers.forEach(other => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const isMissing = row => row.cells[column].classList.contains("missing");
    const compare = (a, b) => column ? value(a) - value(b) : value(a).localeCompare(value(b));
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : ascending ? compare(a, b) : compare(b, a)));
    table.tBodies[0].append(...rows);
  }));
}

// Show the chart of the two metrics that are selected.
for (const charts of document.querySelectorAll(".charts")) {
  const selected = axis => charts.querySelector(`select[data-axis=${axis}]`).value;
  charts.addEventListener("change", () => {
    for (const figure of charts.querySelectorAll("figure"))
      figure.hidden = figure.dataset.x !== selected("x") || figure.dataset.y !== selected("y");
  });
}
