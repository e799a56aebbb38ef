/**
 * Makes dist/, what the package holds: the program, its threads, its manual pages, the library. Packages of npm's that run
 * anywhere are bundled (and are devDependencies); optional and peer dependencies stay outside.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { build } from 'esbuild';

const root = dirname(import.meta.dirname ?? dirname(new URL(import.meta.url).pathname));
const dist = join(root, 'dist');
const MAIN = 'cli/main';
const LIBRARY = 'index';
const PAGES = { 'qcow2fs.1': 'qcow2fs', 'mount.qcow2fs.8': 'mount.qcow2fs' };

/** Compiled into a bundled package, whose own licence does not tell it. */
const WITHIN = { '@cloudpss/zstd': 'scripts/licences/zstd.txt' };

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)));
}

/**
 * Files that threads start from, as `new URL('../fuse/worker-main.js', import.meta.url)` names them: relative to a
 * folder of src/, as they must be to be found from dist/chunks/ as well.
 */
function threadEntries() {
  const named = filesBelow(join(root, 'src')).flatMap((file) => {
    const text = readFileSync(join(root, 'src', file), 'utf8');
    return [...text.matchAll(/new URL\(\s*'([^']*\.js)',\s*import\.meta\.url/g)].map(([, url]) => {
      if (/^\.\.\/[^./]/.test(url)) return url.slice('../'.length, -'.js'.length);
      throw new Error(`src/${file}: '${url}' would not be found from dist/chunks/`);
    });
  });
  return [...new Set(named)];
}

const entries = [MAIN, LIBRARY, ...threadEntries()];
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: entries.map((name) => ({ in: `src/${name}.ts`, out: name })),
  outdir: 'dist',
  chunkNames: 'chunks/[name]-[hash]',
  external: Object.keys({ ...manifest.optionalDependencies, ...manifest.peerDependencies }),
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  charset: 'utf8',
  metafile: true,
  logLevel: 'warning',
});
chmodSync(join(dist, `${MAIN}.js`), 0o755);

/** The licences of all that is bundled, word for word. */
function licences() {
  const names = Object.keys(metafile.inputs).flatMap(
    (path) => /^node_modules\/((?:@[^/]*\/)?[^/]*)\//.exec(path)?.[1] ?? [],
  );
  const texts = [...new Set(names)].sort().map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`${name} has no licence`);
    const parts = [join(folder, file), ...(name in WITHIN ? [join(root, WITHIN[name])] : [])];
    const text = parts.map((part) => readFileSync(part, 'utf8').trim()).join('\n\n');
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

const written = new Set(Object.keys(metafile.outputs).map((path) => relative('dist', path)));
function write(name, text) {
  mkdirSync(dirname(join(dist, name)), { recursive: true });
  writeFileSync(join(dist, name), text);
  written.add(name);
}

/** Declarations of the library's interface, with all that they name; none may name what is not promised. */
function writeTypes(name, from) {
  if (name !== LIBRARY && !name.startsWith('lib/'))
    throw new Error(`${from} names types of ${name}`);
  if (written.has(`${name}.d.ts`)) return;
  const text = readFileSync(join(root, 'build', `${name}.d.ts`), 'utf8');
  write(`${name}.d.ts`, text);
  for (const [, path] of text.matchAll(/^(?:import|export)\b.*from '([^']*)'/gm)) {
    if (!path.startsWith('.')) throw new Error(`${name} names types of '${path}'`);
    writeTypes(join(dirname(name), path).replace(/\.js$/, ''), name);
  }
}

writeTypes(LIBRARY);
if (readFileSync(join(dist, `${LIBRARY}.js`), 'utf8').includes('import.meta.url')) {
  throw new Error('dist/index.js names files: they are found from a folder of dist/ alone');
}
write('LICENCES.txt', licences());
for (const [name, page] of Object.entries(PAGES)) {
  const main = join(dist, `${MAIN}.js`);
  write(`man/${name}`, execFileSync(process.execPath, [main, 'man', page]));
}
// What an older build has left.
for (const name of filesBelow(dist)) if (!written.has(name)) rmSync(join(dist, name));
