/** What a worker thread starts with. */
import { runWorker } from './worker.js';

await runWorker();
