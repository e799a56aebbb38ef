#!/usr/bin/env node
/** The executable: runs the command, and alone exits the process. */
import './progress-signal.js';

// Only now, as all that is imported is loaded before the first line of it runs.
const { exitNow, isLoaded, problemStatus, run } = await import('./run.js');

/** The disk behind our output may be full. Where nobody reads it any more, the work is done all the same. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') end(problemStatus(error));
});

try {
  const { status, atOnce } = await run(process.argv.slice(2));
  if (atOnce === true) end(status);
  process.exitCode = status;
} catch (error) {
  end(problemStatus(error));
}

/** A mount that failed may have left threads that block in the kernel: Node.js would wait for them. */
function end(status: number): never {
  if (isLoaded()) exitNow(status);
  process.exit(status);
}
