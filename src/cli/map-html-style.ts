/** The look of the page that `map --html` writes: light or dark, as its reader's system or its button says. */

const LIGHT =
  '--page: #fff; --text: #1c2128; --faint: #59636e; --line: #d4dae0; --raised: #f5f7f9; --accent: #2459b8;';
const DARK =
  '--page: #14181d; --text: #e4e8ec; --faint: #9aa5b1; --line: #333b44; --raised: #1d232a; --accent: #7fb0ff;';

export const STYLE = `
:root { color-scheme: light dark; ${LIGHT} }
@media (prefers-color-scheme: dark) { :root:not([data-theme="light"]) { ${DARK} } }
:root[data-theme="dark"] { color-scheme: dark; ${DARK} }
:root[data-theme="light"] { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 1160px; margin: 0 auto; padding: 0 24px; }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 16px; padding-top: 20px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 8px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 14px 0 0; }
.facts dt { color: var(--faint); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; margin: 0 0 8px; }
.bar span { color: var(--faint); margin-left: 6px; }
button, select { font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 12px; max-width: 100%; }
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
canvas { display: block; width: 100%; }
#overview { height: 30px; margin-bottom: 10px; cursor: pointer; }
#map { cursor: crosshair; }
#order { height: 320px; border: 1px solid var(--line); border-radius: 6px; background: var(--raised); margin-bottom: 10px; }
#details { min-height: 2.9em; margin: 10px 0 0; padding: 8px 12px; background: var(--raised);
  border: 1px solid var(--line); border-radius: 6px; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.note { color: var(--faint); font-size: 13px; margin: 6px 0 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { color: var(--faint); font-weight: 500; font-size: 13px; }
tbody th { font-weight: 400; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.swatch { display: inline-block; width: 16px; height: 16px; border: 1px solid var(--line); border-radius: 3px; margin: 0 8px; vertical-align: -3px; }
details { margin: 24px 0 40px; }
summary { cursor: pointer; color: var(--accent); }
@media print { button, #keys, .bar { display: none; } }
`;
