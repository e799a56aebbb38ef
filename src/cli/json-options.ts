/** Options of an image written as JSON: `json:{"driver": "qcow2", "file": {…}}`. */
import { invalid } from '../errors.js';

/** Flat: the keys of inner objects follow a dot. Null is a child that is not to be. */
export type OptionMap = Map<string, string | null>;

/** The options of the text behind `json:`. Throws an ImageError in QEMU's words. */
export function parseJsonOptions(text: string): OptionMap {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(STRINGS, doubleQuoted));
  } catch (error) {
    const early = /end of JSON|Unterminated/.test(String(error));
    const word = /^\s*([a-z]+)/.exec(text)?.[1];
    const wrong = word === undefined ? 'invalid syntax' : `invalid keyword '${word}'`;
    const what = early ? 'premature EOI' : wrong;
    throw invalid(`Could not parse the JSON options: JSON parse error, ${what}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('Invalid JSON object given');
  }
  const options: OptionMap = new Map();
  flatten('', value, options);
  return options;
}

/** QEMU takes strings in single quotes, too. */
const STRINGS = /"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'/gs;

function doubleQuoted(written: string, inner: string | undefined): string {
  if (inner === undefined) return written;
  return `"${inner.replaceAll("\\'", "'").replaceAll('"', '\\"')}"`;
}

function flatten(prefix: string, object: object, options: OptionMap): void {
  for (const [key, value] of Object.entries(object) as [string, unknown][]) {
    const name = `${prefix}${key}`;
    if (value === null) options.set(name, null);
    else if (typeof value === 'object') flatten(`${name}.`, value, options);
    else if (typeof value === 'boolean') options.set(name, value ? 'on' : 'off');
    else options.set(name, String(value));
  }
}
