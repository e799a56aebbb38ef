#!/usr/bin/env node
/** The executable: runs the command, and alone exits the process. */
import './progress-signal.js';

// Only now, as all that is imported is loaded before the first line of it runs.
const { exitNow } = await import('../sys/process.js');
const { problemStatus, run } = await import('./run.js');

/** Whoever reads our output may have gone, or its disk may be full. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  exitNow(error.code === 'EPIPE' ? 1 : problemStatus(error));
});

try {
  const { status, atOnce } = await run(process.argv.slice(2));
  if (atOnce === true) exitNow(status);
  process.exitCode = status;
} catch (error) {
  // A mount that failed may have left threads that block in the kernel.
  exitNow(problemStatus(error));
}
