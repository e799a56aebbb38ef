/** Memory that lies ready for all that is measured. */
import { constants } from 'node:buffer';
import { run } from './process.js';

/**
 * Takes as much free memory as a page cache of `bytes` will need, and gives it back. In a virtual
 * machine the first use of a page costs a fault in the host, which whoever happens to come first would
 * pay: a factor of three on a cold buffered read, of five on a copy.
 */
export async function touchMemory(bytes: number, signal: AbortSignal): Promise<void> {
  const size = Math.min(bytes, constants.MAX_LENGTH);
  await run(process.execPath, ['-e', `Buffer.alloc(${size}, 1)`], { signal });
}
