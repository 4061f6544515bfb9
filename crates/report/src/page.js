(function () {
  "use strict";
  function each(list, f) { Array.prototype.forEach.call(list, f); }
  function key(row, column) {
    var cell = row.cells[column], v = cell.getAttribute("data-v");
    if (v !== null) { return Number(v); }
    return cell.className === "num" ? -Infinity : cell.textContent.toLowerCase();
  }
  each(document.querySelectorAll("table.sort"), function (table) {
    var body = table.tBodies[0], heads = table.tHead.rows[0].cells;
    each(heads, function (th, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.title = "Sort";
      while (th.firstChild) { button.appendChild(th.firstChild); }
      th.appendChild(button);
      button.addEventListener("click", function () {
        var sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        each(heads, function (h) { h.removeAttribute("aria-sort"); });
        th.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        Array.from(body.rows).sort(function (a, b) {
          var x = key(a, column), y = key(b, column);
          return sign * (x > y ? 1 : y > x ? -1 : 0);
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  });
})();
