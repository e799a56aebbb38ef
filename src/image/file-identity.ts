/** What tells a file from all others, by whatever name it was opened: links make many names of one. */
import { fstatSync, type Stats } from 'node:fs';

export function identityOf(stat: Stats): string {
  return stat.isBlockDevice() ? `block ${stat.rdev}` : `${stat.dev}:${stat.ino}`;
}

export function fileIdentity(fd: number): string {
  return identityOf(fstatSync(fd));
}
