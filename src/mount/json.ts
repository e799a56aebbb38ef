/**
 * JSON as QEMU's tools print it: keys in the order of QEMU's dictionary, four spaces a level, text in
 * ASCII, 64-bit integers in full. Scripts that compare texts see no difference.
 */

export type JsonValue = string | number | bigint | boolean | readonly JsonValue[] | JsonObject;

/** A property that is undefined is left out. */
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/**
 * All keys, in the order in which QEMU prints them: its dictionary goes by a hash of the key, so
 * that one order holds for every object. A test holds it against what qemu-img prints.
 */
const KEY_ORDER = [
  'ivgen-alg',
  'cid',
  'parent-cid',
  'create-type',
  'extents',
  'compat',
  'icount',
  'flags',
  'vm-clock-nsec',
  'image-end-offset',
  'name',
  'active',
  'compressed-clusters',
  'hash-alg',
  'iters',
  'compression-type',
  'lazy-refcounts',
  'date-sec',
  'bitmaps',
  'cipher-alg',
  'refcount-bits',
  'uuid',
  'total-clusters',
  'corruptions',
  'data-file',
  'ivgen-hash-alg',
  'corruptions-fixed',
  'check-errors',
  'backing-filename-format',
  'date-nsec',
  'granularity',
  'required',
  'leaks',
  'snapshots',
  'key-offset',
  'leaks-fixed',
  'allocated-clusters',
  'compressed',
  'virtual-size',
  'filename',
  'cluster-size',
  'fully-allocated',
  'format',
  'encrypt',
  'actual-size',
  'data-file-raw',
  'format-specific',
  'full-backing-filename',
  'cipher-mode',
  'stripes',
  'slots',
  'payload-offset',
  'vm-clock-sec',
  'encrypted',
  'type',
  'master-key-iters',
  'backing-filename',
  'corrupt',
  'fragmented-clusters',
  'id',
  'vm-state-size',
  'dirty-flag',
  'extended-l2',
  'data',
] as const;

const PLACE: ReadonlyMap<string, number> = new Map(KEY_ORDER.map((key, index) => [key, index]));

/** An object's properties in QEMU's order. Throws where a key's place is not known: a bug of ours. */
export function orderedEntries(object: JsonObject): [string, JsonValue][] {
  const entries: [string, JsonValue][] = [];
  for (const [key, value] of Object.entries(object)) {
    if (value !== undefined) entries.push([key, value]);
  }
  return entries.sort(([a], [b]) => placeOf(a) - placeOf(b));
}

function placeOf(key: string): number {
  const place = PLACE.get(key);
  if (place === undefined) throw new RangeError(`the place of key '${key}' is not known`);
  return place;
}

/** Whether a value is an object or a list, which print over several lines. */
export function isComposite(value: JsonValue): value is JsonObject | readonly JsonValue[] {
  return typeof value === 'object';
}

export function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** The value's text, without a newline at its end. */
export function formatJson(value: JsonValue, level = 0): string {
  if (typeof value === 'string') return quote(value);
  if (!isComposite(value)) return String(value);
  const indent = '    '.repeat(level);
  const lines = isList(value)
    ? value.map((item) => formatJson(item, level + 1))
    : orderedEntries(value).map(([key, v]) => `${quote(key)}: ${formatJson(v, level + 1)}`);
  const body = lines.map((line) => `${indent}    ${line}`).join(',\n');
  const [open, close] = isList(value) ? '[]' : '{}';
  return body === '' ? `${open}\n${indent}${close}` : `${open}\n${body}\n${indent}${close}`;
}

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

function quote(text: string): string {
  // What Unicode calls noncharacters QEMU takes for bad encoding; so are lone surrogates.
  const valid = text.replace(/[\p{Noncharacter_Code_Point}\p{Surrogate}]/gu, '\ufffd');
  const escaped = valid.replace(/[^ !#-[\]-~]/g, (unit) => {
    const code = unit.charCodeAt(0).toString(16).toUpperCase();
    return SHORT_ESCAPES[unit] ?? `\\u${code.padStart(4, '0')}`;
  });
  return `"${escaped}"`;
}
