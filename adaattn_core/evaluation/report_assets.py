"""What report.html looks like and how it sorts: its CSS and JavaScript."""

CSS = """
:root{color-scheme:light dark;--font:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
--bg:#f7f7f5;--card:#fff;--ink:#1d1f23;--muted:#666b74;--line:#e2e3e6;--soft:#f1f2f4;--accent:#2456c8;
--better:#11703c;--worse:#b3261e;--s0:#2f6fde;--s1:#d0561c;--s2:#1f8a63;--s3:#9b45bb;--s4:#a87b00;--s5:#c2305a;
--s6:#2c87a3;--s7:#75624d}
@media(prefers-color-scheme:dark){:root{--bg:#111316;--card:#191c20;--ink:#e7e9ec;--muted:#9ba1ab;--line:#2d3138;--soft:#22262c;
--accent:#86adff;--better:#5fd08f;--worse:#ff8b82;--s0:#74a7ff;--s1:#ff9663;--s2:#52cc9c;--s3:#d491ea;--s4:#e2bb45;--s5:#ff83a6;
--s6:#6fcbe6;--s7:#c0ab92}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 var(--font)}
main{max-width:1400px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 6px;text-wrap:balance}
h2{font-size:18px;margin:0 0 12px}
header p{color:var(--muted);margin:0 0 24px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px 22px;margin:0 0 20px}
section p{max-width:90ch;margin:0 0 12px}
.wide{overflow-x:auto;margin:0 -22px;padding:0 22px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
.sortable{width:100%}
th,td{text-align:right;padding:7px 8px;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card);z-index:1}
tbody th{font-weight:600}
tbody tr:last-child>*{border-bottom:0}
thead th{font-weight:500;color:var(--muted);font-size:13px;vertical-align:bottom}
.groups th{text-align:left;border-bottom:0;padding-bottom:0;font-size:11.5px;letter-spacing:.05em}
.groups th{text-transform:uppercase}
.groups th+th{border-left:1px solid var(--line)}
th button{all:unset;cursor:pointer;white-space:normal;display:inline-block}
th button:hover,th[aria-sort] button{color:var(--accent)}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort] button{font-weight:700}
td small,th small{display:block;color:var(--muted);font-size:11.5px;font-weight:400;letter-spacing:-.01em}
tbody .missing,thead .missing{color:var(--muted);opacity:.75}
.best{font-weight:700}
tr.reference th,tr.reference td{color:var(--muted);font-weight:400}
td.better,span.better{color:var(--better)}
td.worse,span.worse{color:var(--worse)}
span.better,span.worse{font-weight:600}
.notes{color:var(--muted);font-size:13.5px;margin:14px 0 0;padding-left:18px}
.key{width:14px;height:14px;margin-right:7px;vertical-align:-2px}
.controls{display:flex;flex-wrap:wrap;gap:8px 20px;align-items:center;max-width:none;color:var(--muted)}
.controls{font-size:13.5px}
select{font:inherit;color:var(--ink);background:var(--soft);border:1px solid var(--line);border-radius:6px}
select{padding:3px 6px;margin-left:4px}
.charts figure{margin:0 auto;max-width:980px;overflow-x:auto}
.charts svg{display:block;width:100%;min-width:560px;height:auto}
svg text{font:12.5px var(--font);fill:var(--ink)}
svg .tick,svg .axis{fill:var(--muted)}
.grid{stroke:var(--line);fill:none}
.frame{stroke:var(--line);fill:none}
.marker{fill:var(--c);stroke:var(--card)}
.whisker{stroke:var(--c);stroke-width:1.5;opacity:.6;fill:none}
.point text{font-weight:600;fill:var(--c)}
.reference .marker{fill:var(--card);stroke:var(--c);stroke-width:1.6}
.reference text{font-weight:400}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}
.s7{--c:var(--s7)}.reference{--c:var(--muted)}
.pictures{display:grid;grid-template-columns:repeat(var(--columns),minmax(150px,1fr));gap:10px 8px;font-size:12.5px}
.pictures b{font-size:13px;overflow-wrap:anywhere}
.pictures figure{margin:0}
.pictures img{display:block;width:100%;object-fit:contain;border-radius:4px;background:var(--soft)}
.pictures figcaption{color:var(--muted);margin-top:3px;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.definitions{white-space:normal;font-size:13.5px}
.definitions th,.definitions td{text-align:left;padding:5px 14px 5px 0}
.definitions th{white-space:nowrap;min-width:9em}
.definitions td{overflow-wrap:anywhere}
details{margin-top:12px}
summary{cursor:pointer;color:var(--accent)}
.pairs{columns:3 260px;font-size:13px;color:var(--muted)}
@media(max-width:700px){main{padding:16px 10px 40px}section{padding:14px}.wide{margin:0 -14px;padding:0 14px}}
@media print{body{background:#fff}section{break-inside:avoid;border:0;padding:0}}
"""

JS = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const empty = row => row.cells[column].classList.contains("missing");
    const order = (a, b) => column ? value(a) - value(b) : value(a).localeCompare(value(b));
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : up ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows);
  }));
}
for (const charts of document.querySelectorAll(".charts")) {
  const chosen = axis => charts.querySelector(`select[data-axis=${axis}]`).value;
  charts.addEventListener("change", () => {
    for (const figure of charts.querySelectorAll("figure"))
      figure.hidden = figure.dataset.x !== chosen("x") || figure.dataset.y !== chosen("y");
  });
}
"""
