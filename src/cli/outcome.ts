/** What a command comes to: its exit status; and for `main`, which alone exits, how to exit. */
export interface Outcome {
  readonly status: number;
  /** End at once: threads that block in the kernel would keep the process alive for ever. */
  readonly atOnce?: boolean;
}
