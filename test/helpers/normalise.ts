/** What two runs of the same command line may differ in, however alike the tools are: all of it is here. */

/** Times and rates that qemu-io measures, and names that it makes up. */
export function normaliseIo(text: string): string {
  return (
    text
      .replace(/; (\d+:)*\d\d\.\d\d( sec)? \([^)]*\)/g, '; TIME')
      .replace(/^(\d+,\d+),[\d:.]+,[\d.]+,[\d.]+$/gm, '$1,TIME')
      // Nodes that have no name are numbered.
      .replace(/ '#block\d+'/g, '')
  );
}

/** QEMU's last hint comes without a line's end. */
export function normaliseErrors(stderr: string): string {
  return stderr.endsWith('\n') || stderr === '' ? stderr : `${stderr}\n`;
}

/** `qemu-img info --output=json`: how much of the host's disk an image takes is the file system's matter. */
export function normaliseInfo(text: string): unknown {
  const facts = JSON.parse(text) as Record<string, unknown>;
  delete facts['actual-size'];
  return facts;
}

/**
 * `qemu-img map --output=json`: where in the file things lie is each tool's own choice; and QEMU looks
 * for holes in data only where the file takes less space than its clusters, roughly.
 */
export function normaliseMap(text: string): MapEntry[] {
  const entries: MapEntry[] = [];
  for (const { offset: _offset, ...entry } of JSON.parse(text) as (MapEntry & {
    offset?: number;
  })[]) {
    const shown = { ...entry, zero: entry.zero && !entry.data };
    const last = entries.at(-1);
    const { length, ...kind } = shown;
    if (last !== undefined && sameKind(last, kind)) last.length += length;
    else entries.push(shown);
  }
  return entries;
}

interface MapEntry {
  start: number;
  length: number;
  depth: number;
  present: boolean;
  zero: boolean;
  data: boolean;
}

function sameKind(one: MapEntry, other: Omit<MapEntry, 'start' | 'length'>): boolean {
  return (['depth', 'present', 'zero', 'data'] as const).every((key) => one[key] === other[key]);
}
