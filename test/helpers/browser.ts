/**
 * A real browser without a window, driven over the pipes that it offers: messages of JSON, each ended by a NUL, as
 * the Chrome DevTools Protocol has them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

const WORDS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
  ...['--disable-background-networking', '--remote-debugging-pipe'],
];

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

export class Browser {
  readonly #child: ChildProcess;
  readonly #to: Writable;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #last = 0;
  #session: string | undefined;
  /** What the pages asked for over the network or from files, and what went wrong in them. */
  readonly requests: string[] = [];
  readonly complaints: string[] = [];

  /** `folder`: for what it keeps. */
  constructor(folder: string) {
    this.#child = spawn('chromium', [...WORDS, `--user-data-dir=${folder}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    this.#to = this.#child.stdio[3] as Writable;
    let text = '';
    (this.#child.stdio[4] as Readable).setEncoding('utf8').on('data', (piece: string) => {
      const messages = (text + piece).split('\0');
      text = messages.pop()!;
      for (const message of messages) this.#hear(JSON.parse(message) as Message);
    });
  }

  #hear(message: Message): void {
    const { id, method, params } = message;
    if (id !== undefined) this.#waiting.get(id)?.(message);
    if (method === 'Network.requestWillBeSent') {
      this.requests.push((params!.request as { url: string }).url);
    }
    const entry = method === 'Log.entryAdded' ? (params!.entry as { level: string }) : undefined;
    if (method === 'Runtime.exceptionThrown' || entry?.level === 'error') {
      this.complaints.push(JSON.stringify(params));
    }
  }

  async #call(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const id = ++this.#last;
    const answer = new Promise<Message>((resolve) => void this.#waiting.set(id, resolve));
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    this.#to.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    const { result, error } = await answer;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  /** Opens a page, and waits until it is loaded. */
  async open(url: string): Promise<void> {
    this.#session = undefined;
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' });
    const attached = await this.#call('Target.attachToTarget', { targetId, flatten: true });
    this.#session = attached.sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Network', 'Log'])
      await this.#call(`${domain}.enable`);
    this.requests.length = 0;
    this.complaints.length = 0;
    const { errorText } = await this.#call('Page.navigate', { url });
    if (errorText !== undefined) throw new Error(`${url}: ${String(errorText)}`);
    while ((await this.evaluate('document.readyState')) !== 'complete') {
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** What an expression comes to in the page; of a promise, what that does. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.#call('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value?: unknown }).value;
  }

  /** A key, as its user presses it. */
  async press(key: string): Promise<void> {
    const text = key.length === 1 ? { text: key } : {};
    await this.#call('Input.dispatchKeyEvent', { type: 'keyDown', key, ...text });
    await this.#call('Input.dispatchKeyEvent', { type: 'keyUp', key });
  }

  /** The mouse comes to a place of the window. */
  async point(x: number, y: number): Promise<void> {
    await this.#call('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y });
  }

  /** Whether its user's system is dark. */
  async setDark(dark: boolean): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }];
    await this.#call('Emulation.setEmulatedMedia', { features });
  }

  /** A picture of the page, PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.#call('Page.captureScreenshot', { captureBeyondViewport: true });
    return Buffer.from(data as string, 'base64');
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }
}
