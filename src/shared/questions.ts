/**
 * Questions of threads that have no event loop to the main thread, which has one. Who asks sleeps on a word of its
 * own until the answer lies in its port, and takes it from there.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { ImageError } from '../errors.js';

// Words.
const PHASE = 0;
const STOPPED = 1;
const WORDS = 4;

// Phases.
const ASKED = 1;
const ANSWERED = 2;

/** An end that comes between a look and a sleep is seen after so long. */
const NAP_MS = 100;

/** What the thread needs that asks; `port` is handed over. */
export interface QuestionLine {
  readonly port: MessagePort;
  readonly words: SharedArrayBuffer;
}

/** Asks; plain data both ways. Throws ENOTCONN where nobody answers any more. */
export function ask({ port, words: memory }: QuestionLine, question: unknown): unknown {
  const words = new Int32Array(memory);
  Atomics.store(words, PHASE, ASKED);
  port.postMessage(question);
  while (Atomics.load(words, PHASE) !== ANSWERED) {
    if (Atomics.load(words, STOPPED) !== 0) {
      throw new ImageError('policy', 'ENOTCONN', 'the mount has ended');
    }
    Atomics.wait(words, PHASE, ASKED, NAP_MS);
  }
  return receiveMessageOnPort(port)!.message;
}

/** Answers the questions of any number of threads, one after the other. */
export class Answerer {
  readonly #answer: (question: unknown) => unknown;
  readonly #lines = new Set<Int32Array>();
  #stopped = false;

  /** `answer` must not throw. */
  constructor(answer: (question: unknown) => unknown) {
    this.#answer = answer;
  }

  /** A line for one more thread. */
  connect(): QuestionLine {
    const { port1, port2 } = new MessageChannel();
    const memory = new SharedArrayBuffer(WORDS * 4);
    const words = new Int32Array(memory);
    this.#lines.add(words);
    if (this.#stopped) Atomics.store(words, STOPPED, 1);
    port1.on('message', (question) => {
      if (this.#stopped) return;
      port1.postMessage(this.#answer(question));
      Atomics.store(words, PHASE, ANSWERED);
      Atomics.notify(words, PHASE);
    });
    port1.once('close', () => this.#lines.delete(words));
    // It keeps no process alive.
    port1.unref();
    return { port: port2, words: memory };
  }

  /** Who waits for an answer, or asks from now on, gets none. */
  stop(): void {
    this.#stopped = true;
    for (const words of this.#lines) {
      Atomics.store(words, STOPPED, 1);
      Atomics.notify(words, PHASE);
    }
  }
}
