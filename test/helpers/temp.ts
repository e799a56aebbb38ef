/** A folder of its own for each test, gone afterwards. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TempFolder {
  /** The folder's path; valid while a test runs. */
  readonly path: string;
  /** The path of a file in the folder. */
  at(name: string): string;
  /** Writes a file into the folder and answers its path. */
  write(name: string, bytes: Uint8Array | string): string;
}

/** To be called in the body of a `describe`: each of its tests finds the folder empty. */
export function useTempFolder(): TempFolder {
  let path = '';
  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'qcow2fs-test-'));
  });
  afterEach(() => rmSync(path, { recursive: true, force: true }));
  return {
    get path() {
      return path;
    },
    at: (name) => join(path, name),
    write: (name, bytes) => {
      writeFileSync(join(path, name), bytes);
      return join(path, name);
    },
  };
}
