/**
 * The output of the commands. As a C program's it waits in memory where nobody looks on, so that it
 * stands behind what comes on standard error; and it is lost where the process is killed.
 */

/** What waits at most, in bytes. */
const BUFFER_SIZE = 4096;

export class Output {
  readonly #terminal = process.stdout.isTTY === true;
  #waiting: string[] = [];
  #size = 0;

  print(text: string): void {
    this.#waiting.push(text);
    this.#size += Buffer.byteLength(text);
    if (this.#terminal || this.#size >= BUFFER_SIZE) this.flush();
  }

  flush(): void {
    if (this.#size > 0) process.stdout.write(this.#waiting.join(''));
    this.#waiting = [];
    this.#size = 0;
  }
}
