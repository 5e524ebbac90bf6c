"""Style of the HTML page: dark on light, one column, tables with few lines."""

STYLE = """
:root { color-scheme: light; --ink: #1d2329; --quiet: #5b6570; --line: #d5dae0; --shade: #f5f2ea; --warn: #9a3412; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.6rem 1.5rem 3rem; max-width: 80rem; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; padding-top: .8rem; border-top: 2px solid var(--ink);
  overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
h4 { font-size: .87rem; margin: 0 0 .2rem; }
header p, footer dl { max-width: 60rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
a { color: #1a56a0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid var(--ink); }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { font-weight: 600; vertical-align: bottom; }
thead { border-top: 1px solid var(--ink); border-bottom: 1px solid var(--ink); }
thead tr:first-child th.group { text-align: center; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
tbody tr + tr { border-top: 1px solid var(--line); }
th.text, td.text, th:first-child { text-align: left; }
tr.control { background: var(--shade); }
small { display: block; color: var(--quiet); font-size: .78rem; font-weight: 400; line-height: 1.25; }
td.remark { white-space: normal; min-width: 16rem; max-width: 26rem; }
ul { margin: .5rem 0; padding-left: 1.1rem; }
ul.notes { color: var(--quiet); font-size: .85rem; line-height: 1.4; max-width: 62rem; }
li { overflow-wrap: anywhere; }
.incomplete { border-left: 3px solid var(--warn); padding: .1rem .8rem; margin: .8rem 0;
  font-size: .85rem; max-width: 62rem; }
.incomplete h4 { color: var(--warn); }
details { margin: .4rem 0; }
summary { cursor: pointer; font-size: .87rem; color: #1a56a0; }
details .scroll { margin: .4rem 0 .9rem; }
figure { margin: 1.8rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .85rem; max-width: 60rem; margin-top: .4rem; }
footer { font-size: .87rem; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.2rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; } figure, article { break-inside: avoid; } }
"""
