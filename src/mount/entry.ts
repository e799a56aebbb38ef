/** An entry in the listing of a directory. */
export interface Entry {
  readonly name: string;
  readonly id: number;
  readonly directory: boolean;
  /** The place in the listing behind this entry. */
  readonly next: number;
}

export function fileEntry(name: string, id: number, next: number): Entry {
  return { name, id, directory: false, next };
}

export function directoryEntry(name: string, id: number, next: number): Entry {
  return { name, id, directory: true, next };
}
