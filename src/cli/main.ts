#!/usr/bin/env node
/** The executable: runs the command, and alone exits the process. */
import './progress-signal.js';

// Only now, as all that is imported is loaded before the first line of it runs.
const { exitNow, problemStatus, run } = await load();

/** The disk behind our output may be full. Where nobody reads it any more, the work is done all the same. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') exitNow(problemStatus(error));
});

try {
  const { status, atOnce } = await run(process.argv.slice(2));
  if (atOnce === true) exitNow(status);
  process.exitCode = status;
} catch (error) {
  // A mount that failed may have left threads that block in the kernel.
  exitNow(problemStatus(error));
}

/** Everything else of the program; where its native library is missing, nothing of it works. */
async function load() {
  try {
    return { ...(await import('../sys/process.js')), ...(await import('./run.js')) };
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    process.stderr.write(
      `qcow2fs: cannot be loaded: ${reason}\n` +
        `It needs Node.js 20 or later (this is ${process.version}, ${process.platform}-${process.arch}), and the ` +
        "package koffi with its optional parts: 'npm install --include=optional'\n",
    );
    return process.exit(1);
  }
}
