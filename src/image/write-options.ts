/** How writes are done. */
export interface WriteOptions {
  /**
   * `writeback`: flushes make durable. `writethrough`: each write does. `none`: as writeback, past
   * the host's page cache. `unsafe`: nothing does.
   */
  readonly cache: 'writeback' | 'writethrough' | 'none' | 'unsafe';
  /** Whether freed clusters become holes of the host's file. */
  readonly discard: 'unmap' | 'ignore';
  /** Whether writes of zeroes become zero clusters: `on` keeps their space, `unmap` gives it back. */
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** Refcounts may wait; where it is not given, the image says so. Version 3 alone. */
  readonly lazyRefcounts?: boolean | undefined;
}

export const DEFAULT_WRITE_OPTIONS: WriteOptions = {
  cache: 'writeback',
  discard: 'unmap',
  detectZeroes: 'off',
};
