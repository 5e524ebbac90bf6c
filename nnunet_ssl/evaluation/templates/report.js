// Tables sort by the column whose heading is clicked, largest number first; a second click turns the order round.
document.querySelectorAll("table").forEach(table => {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const read = (row, column) => {
    const cell = row.cells[column].cloneNode(true);
    cell.querySelectorAll("small").forEach(detail => detail.remove());
    return cell.textContent.trim();
  };
  const number = text => parseFloat(text.replace("\u2212", "-").replace(/^[<+]/, ""));
  const sort = (heading, column) => {
    const numeric = heading.classList.contains("number");
    const down = heading.ariaSort ? heading.ariaSort !== "descending" : numeric;
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [x, y] = [a, b].map(row => read(row, column));
      if (!numeric) return down ? y.localeCompare(x) : x.localeCompare(y);
      const [p, q] = [x, y].map(number);
      if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q); // cells without a number stay last
      return down ? q - p : p - q;
    };
    body.append(...[...body.rows].sort(compare));
  };
  headings.forEach((heading, column) => {
    heading.classList.add("sorts");
    heading.tabIndex = 0;
    heading.title = "Sort by this column";
    heading.addEventListener("click", () => sort(heading, column));
    heading.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(heading, column);
    });
  });
});
