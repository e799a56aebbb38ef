/** How writes are done. */
export interface WriteOptions {
  /**
   * `writeback`: flushes make durable. `writethrough`: each write does. `none`: as writeback, past
   * the host's page cache. `directsync`: as writethrough, past it. `unsafe`: nothing does.
   */
  readonly cache: 'writeback' | 'writethrough' | 'none' | 'directsync' | 'unsafe';
  /** Whether freed clusters become holes of the host's file. */
  readonly discard: 'unmap' | 'ignore';
  /** Whether writes of zeroes become zero clusters: `on` keeps their space, `unmap` gives it back. */
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** Refcounts may wait; where it is not given, the image says so. Version 3 alone. */
  readonly lazyRefcounts?: boolean | undefined;
}

/** Past the host's page cache. */
export function isDirect(cache: WriteOptions['cache']): boolean {
  return cache === 'none' || cache === 'directsync';
}

/** Each write is durable before it is answered. */
export function writesThrough(cache: WriteOptions['cache']): boolean {
  return cache === 'writethrough' || cache === 'directsync';
}

export const DEFAULT_WRITE_OPTIONS: WriteOptions = {
  cache: 'writeback',
  discard: 'unmap',
  detectZeroes: 'off',
};
